// The two WebAuthn ceremonies, between the server's JSON and the browser's buffers.

export const supported = () => typeof PublicKeyCredential === "function" && isSecureContext;

export function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

export function text(buffer) {
  let plain = "";
  for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
  return btoa(plain).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const descriptor = (given) => ({ ...given, id: bytes(given.id) });

/** Make a credential; gives `RegistrationResponseJSON`. */
export async function create(options) {
  const made = await navigator.credentials.create({ publicKey: {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: (options.excludeCredentials ?? []).map(descriptor),
  } });
  return { id: made.id, rawId: text(made.rawId), type: made.type, clientExtensionResults: {}, response: {
    clientDataJSON: text(made.response.clientDataJSON),
    attestationObject: text(made.response.attestationObject),
    transports: made.response.getTransports?.() ?? [],
  } };
}

/** Sign a challenge; gives `AuthenticationResponseJSON`. */
export async function get(options) {
  const made = await navigator.credentials.get({ publicKey: {
    ...options,
    challenge: bytes(options.challenge),
    allowCredentials: (options.allowCredentials ?? []).map(descriptor),
  } });
  const handle = made.response.userHandle;
  return { id: made.id, rawId: text(made.rawId), type: made.type, clientExtensionResults: {}, response: {
    clientDataJSON: text(made.response.clientDataJSON),
    authenticatorData: text(made.response.authenticatorData),
    signature: text(made.response.signature),
    ...(handle && handle.byteLength ? { userHandle: text(handle) } : {}),
  } };
}

/** What to tell a person about a ceremony that the browser ended. */
export function words(error) {
  switch (error?.name) {
    case "NotAllowedError": return "Nothing was signed: it was cancelled, took too long, or this device has no passkey that fits.";
    case "InvalidStateError": return "This authenticator is registered already.";
    case "SecurityError": return "The browser does not allow passkeys on this address.";
    case "NotSupportedError": return "This browser or device offers no passkey that is strong enough.";
    default: return error?.message || "That did not work.";
  }
}
