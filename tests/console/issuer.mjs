// An OpenID Connect issuer of the npm package `oidc-provider`, with its own login pages. Arguments: modules folder, port, redirect address.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { generateKeyPairSync } from "node:crypto";

const [modules, port, redirect] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(createRequire(`${modules}/`).resolve(`${modules}/oidc-provider/lib/index.js`)));
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const groups = { olga: ["finance"], otto: [] };
const provider = new Provider(`http://localhost:${port}`, {
  clients: [{
    client_id: "gate", client_secret: "a-secret-of-the-test", redirect_uris: [redirect], response_types: ["code"], grant_types: ["authorization_code"],
    token_endpoint_auth_method: "client_secret_basic", id_token_signed_response_alg: "ES256",
  }],
  jwks: { keys: [{ ...key, kid: "k1", use: "sig", alg: "ES256" }] },
  cookies: { keys: ["cookie-secret-of-the-test"] },
  pkce: { required: () => true },
  claims: { openid: ["sub"], profile: ["name", "preferred_username", "groups"], email: ["email", "email_verified"] },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)} of the issuer`, preferred_username: id, email: `${id}@example.org`, email_verified: true, groups: groups[id] ?? [] }),
  }),
});
provider.on("server_error", (_ctx, error) => console.error(error));
provider.listen(Number(port), "localhost", () => console.log("ready"));
