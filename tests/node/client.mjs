// An independent OAuth client (oauth4webapi) that goes through the exchange with DPoP, introspection and revocation, and prints what it saw as JSON.
//
// Configuration: {issuer, server, api_client, api_key, machine_key, deployer_key, task_for_alice, task_for_machine, task_of_deployer}
import { createHash } from 'node:crypto'
import * as oauth from 'oauth4webapi'

const given = JSON.parse(process.argv[2])
const plain = { [oauth.allowInsecureRequests]: true } // loopback
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS = 'urn:ietf:params:oauth:token-type:access_token'
const saw = {}

const importKey = (jwk) => crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])

async function discover(url, algorithm) {
  const issuer = new URL(url)
  return oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm, ...plain }))
}
const idp = await discover(given.issuer, 'oidc')
const server = await discover(given.server, 'oauth2')
saw.metadata = server

// A subject token of a machine: client_credentials with private_key_jwt.
const machine = { client_id: 'machine' }
const machineAuth = oauth.PrivateKeyJwt({ key: await importKey(given.machine_key), kid: given.machine_key.kid })
const machineTokens = await oauth.processClientCredentialsResponse(
  idp, machine, await oauth.clientCredentialsGrantRequest(idp, machine, machineAuth, { resource: given.server, scope: 'deploy read' }, plain))

// A subject token of a person: authorization code with PKCE, the browser played by fetch.
const web = { client_id: 'web' }
const redirectUri = 'http://localhost/callback'
const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const begin = new URL(idp.authorization_endpoint)
for (const [name, value] of Object.entries({
  client_id: 'web', redirect_uri: redirectUri, response_type: 'code', scope: 'openid deploy read', resource: given.server, state, login_hint: 'alice',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', acr_values: 'urn:example:aal3',
})) begin.searchParams.set(name, value)
const jar = new Map()
let at = begin
for (let hops = 0; !at.href.startsWith(redirectUri); hops += 1) {
  if (hops > 10) throw new Error(`the login goes in circles: ${at}`)
  const response = await fetch(at, { redirect: 'manual', headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') } })
  for (const cookie of response.headers.getSetCookie()) {
    const [pair] = cookie.split(';')
    jar.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
  }
  if (!response.headers.get('location')) throw new Error(`${response.status} at ${at}: ${await response.text()}`)
  at = new URL(response.headers.get('location'), at)
}
const webAuth = oauth.ClientSecretBasic('web-secret')
const code = oauth.validateAuthResponse(idp, web, at, state)
const aliceTokens = await oauth.processAuthorizationCodeResponse(
  idp, web, await oauth.authorizationCodeGrantRequest(idp, web, webAuth, code, redirectUri, verifier, plain))

// Our server: a client with an API key, DPoP-bound.
const client = { client_id: given.api_client }
const auth = oauth.ClientSecretBasic(given.api_key)
const keys = await oauth.generateKeyPair('ES256')
const dpop = oauth.DPoP(client, keys)

async function exchange(who, whoAuth, form, DPoP = dpop) {
  return oauth.processGenericTokenEndpointResponse(
    server, who, await oauth.genericTokenEndpointRequest(server, who, whoAuth, EXCHANGE, form, { ...(DPoP ? { DPoP } : {}), ...plain }))
}
async function refused(work) {
  try {
    await work()
  } catch (error) {
    return error.error ?? error.cause?.error ?? error.code ?? String(error)
  }
  return 'accepted'
}
const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
async function introspect(token, more = {}) {
  const response = await oauth.introspectionRequest(server, client, auth, token, { ...plain, ...more })
  const answer = await oauth.processIntrospectionResponse(server, client, response)
  if (more.requestJwtResponse) await oauth.validateApplicationLevelSignature(server, response, plain)
  return answer
}

const forAlice = { subject_token: aliceTokens.access_token, subject_token_type: ACCESS, task_id: given.task_for_alice }
const made = await exchange(client, auth, { ...forAlice, audience: 'https://api.example' })
saw.alice = { answer: { ...made, access_token: undefined }, claims: claims(made.access_token) }
saw.thumbprint = createHash('sha256').update(JSON.stringify(await (async () => {
  const { crv, kty, x, y } = await crypto.subtle.exportKey('jwk', keys.publicKey)
  return { crv, kty, x, y }
})())).digest('base64url')
saw.machine = claims((await exchange(client, auth, { subject_token: machineTokens.access_token, subject_token_type: ACCESS, task_id: given.task_for_machine })).access_token)

// A client that proves itself by private_key_jwt, for a task of its own.
const deployer = { client_id: 'deployer' }
const deployerAuth = oauth.PrivateKeyJwt({ key: await importKey(given.deployer_key), kid: given.deployer_key.kid })
const own = await oauth.processClientCredentialsResponse(server, deployer, await oauth.clientCredentialsGrantRequest(
  server, deployer, deployerAuth, { task_id: given.task_of_deployer }, { DPoP: oauth.DPoP(deployer, keys), ...plain }))
saw.own = claims(own.access_token)

// A transaction token.
const txn = await exchange(client, auth, {
  ...forAlice, requested_token_type: 'urn:ietf:params:oauth:token-type:txn_token', audience: 'localhost', request_details: '{"amount":"10"}',
}).catch((error) => ({ failed: String(error), cause: String(error.cause?.message ?? error.cause ?? '') }))
saw.txn = txn

// What must be refused.
saw.refused = {
  wider_scope: await refused(() => exchange(client, auth, { ...forAlice, scope: 'deploy admin' })),
  unknown_detail: await refused(() => exchange(client, auth, { ...forAlice, authorization_details: '[{"type":"nope"}]' })),
  no_key: await refused(() => exchange(client, auth, forAlice, null)),
  wrong_secret: await refused(() => exchange(client, oauth.ClientSecretBasic('wrong'), forAlice)),
  other_task: await refused(() => exchange(client, auth, { ...forAlice, task_id: given.task_of_deployer })),
  id_token: await refused(() => exchange(client, auth, { ...forAlice, subject_token: aliceTokens.id_token })),
  stolen: await refused(async () => exchange(client, auth, { subject_token: made.access_token, subject_token_type: ACCESS }, oauth.DPoP(client, await oauth.generateKeyPair('ES256')))),
}

// Introspection, plain and signed; revocation; and what is left.
saw.introspection = await introspect(made.access_token)
saw.signed = await introspect(made.access_token, { requestJwtResponse: true })
const derived = await exchange(client, auth, { subject_token: made.access_token, subject_token_type: ACCESS, scope: 'read' })
saw.derived_before = (await introspect(derived.access_token)).active
await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, auth, made.access_token, plain))
saw.after = await introspect(made.access_token)
saw.derived_after = await introspect(derived.access_token)
await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, auth, 'not-a-token', plain))
console.log(JSON.stringify(saw))
