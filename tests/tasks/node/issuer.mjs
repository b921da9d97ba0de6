// An OpenID provider for the tests, on a free loopback port: `node issuer.mjs '{...}'` prints one line of JSON, {"issuer": ..., "port": ...}.
//
// Configuration, all optional:
//   port            0 takes a free one
//   redirect_uris   of the client `web` (secret `web-secret`, code flow with PKCE)
//   resources       audiences for which JWT access tokens are given; the first is the default
//   scope           of those resources
//   machine_jwks    public keys of the client `machine` (client_credentials with private_key_jwt, ES256)
//   users           {"alice": {"name": ..., "email": ..., "groups": [...]}}
//   auto            user who is logged in without a page; else the page asks, or `login_hint` says
//   acr, amr        of a login, where the request asks for none
import { createHash, generateKeyPairSync } from 'node:crypto'
import http from 'node:http'
import Provider from 'oidc-provider'

const given = JSON.parse(process.argv[2] ?? '{}')
const users = given.users ?? {
  alice: { name: 'Alice Example', email: 'alice@example.org', groups: ['finance', 'staff'] },
  bob: { name: 'Bob Example', email: 'bob@example.org', groups: ['platform', 'staff'] },
}
const resources = given.resources ?? []

function privateJwk(kind) {
  const { privateKey } = kind === 'EC' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = privateKey.export({ format: 'jwk' })
  const kid = createHash('sha256').update(jwk.x ?? jwk.n).digest('base64url').slice(0, 16)
  return { ...jwk, kid, use: 'sig', alg: kind === 'EC' ? 'ES256' : 'RS256' }
}

const server = http.createServer()
await new Promise((resolve) => server.listen(given.port ?? 0, '127.0.0.1', resolve))
const { port } = server.address()
const issuer = `http://localhost:${port}`

const clients = [
  {
    client_id: 'web',
    client_secret: 'web-secret',
    redirect_uris: given.redirect_uris ?? ['http://localhost/callback'],
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'client_secret_basic',
  },
]
if (given.machine_jwks) {
  clients.push({
    client_id: 'machine',
    redirect_uris: [],
    response_types: [],
    grant_types: ['client_credentials'],
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: given.machine_jwks,
  })
}

const provider = new Provider(issuer, {
  clients,
  jwks: { keys: [privateJwk('RSA'), privateJwk('EC')] },
  cookies: { keys: ['only-for-tests'] },
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  acrValues: given.acr_values ?? ['urn:example:aal2', 'urn:example:aal3'],
  claims: { openid: ['sub', 'acr', 'amr', 'auth_time'], profile: ['name', 'groups'], email: ['email'], acr: null, amr: null, auth_time: null },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: resources.length > 0,
      defaultResource: () => resources[0],
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: given.scope ?? '',
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  extraTokenClaims: (ctx) => {
    const code = ctx.oidc.entities.AuthorizationCode
    return code ? { acr: code.acr, amr: code.amr, auth_time: code.authTime } : undefined
  },
  findAccount: (_ctx, id) =>
    users[id] && { accountId: id, claims: () => ({ sub: id, name: users[id].name, email: users[id].email, groups: users[id].groups ?? [] }) },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    // Everybody consents to everything: consent is not what is tested.
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
    grant.addOIDCScope('openid profile email offline_access')
    for (const resource of resources) grant.addResourceScope(resource, given.scope ?? '')
    await grant.save()
    return grant
  },
})
provider.on('server_error', (_ctx, error) => console.error('server_error', error))

async function finish(request, response, user) {
  const { params } = await provider.interactionDetails(request, response)
  const acr = params.acr_values?.split(' ')[0] ?? given.acr ?? 'urn:example:aal2'
  await provider.interactionFinished(request, response, { login: { accountId: user, acr, amr: given.amr ?? ['pwd', 'otp'] } }, { mergeWithLastSubmission: false })
}

function bodyOf(request) {
  return new Promise((resolve) => {
    let text = ''
    request.on('data', (part) => { text += part })
    request.on('end', () => resolve(new URLSearchParams(text)))
  })
}

const answer = provider.callback()
server.on('request', async (request, response) => {
  const { pathname } = new URL(request.url, issuer)
  if (!pathname.startsWith('/interaction/')) return answer(request, response)
  try {
    if (request.method === 'POST') {
      const user = (await bodyOf(request)).get('user')
      if (users[user]) return await finish(request, response, user)
    }
    const { params } = await provider.interactionDetails(request, response)
    const chosen = params.login_hint ?? given.auto
    if (request.method === 'GET' && users[chosen]) return await finish(request, response, chosen)
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
    response.end(`<!doctype html><html lang="en"><title>Log in</title><h1>Log in</h1>
<form method="post"><label>User <input name="user" autofocus></label> <button>Log in</button></form></html>`)
  } catch (error) {
    response.writeHead(400, { 'content-type': 'text/plain' })
    response.end(String(error))
  }
})
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume() // ends with whoever started it
console.log(JSON.stringify({ issuer, port }))
