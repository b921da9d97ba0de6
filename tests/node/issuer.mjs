// An OpenID provider for the tests, on a free loopback port: `node issuer.mjs '{...}'` prints one line of JSON, {"issuer": ..., "port": ...}.
//
// Configuration, all optional:
//   redirect_uris   of the client `web` (secret `web-secret`, code flow with PKCE)
//   pages           people log in and consent on the provider's own pages; else the `login_hint` of a request is who logs in, and has consented
//   resources       audiences for which JWT access tokens are given; the first is the default
//   scope           of those resources
//   machine_jwks    public keys of the client `machine` (client_credentials with private_key_jwt, ES256)
//   users           {"alice": {"name": ..., "email": ..., "groups": [...]}}
import { createHash, generateKeyPairSync } from 'node:crypto'
import http from 'node:http'
import Provider from 'oidc-provider'

const given = JSON.parse(process.argv[2] ?? '{}')
const users = given.users ?? {
  alice: { name: 'Alice Example', email: 'alice@example.org', groups: ['finance', 'staff'] },
  bob: { name: 'Bob Example', email: 'bob@example.org', groups: ['platform', 'staff'] },
}
const resources = given.resources ?? []
const pages = given.pages ?? false

function privateJwk(kind) {
  const { privateKey } = kind === 'EC' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = privateKey.export({ format: 'jwk' })
  const kid = createHash('sha256').update(jwk.x ?? jwk.n).digest('base64url').slice(0, 16)
  return { ...jwk, kid, use: 'sig', alg: kind === 'EC' ? 'ES256' : 'RS256' }
}

const server = http.createServer()
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
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
    id_token_signed_response_alg: 'ES256',
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

async function consented(ctx) {
  const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
  grant.addOIDCScope('openid profile email offline_access')
  for (const resource of resources) grant.addResourceScope(resource, given.scope ?? '')
  await grant.save()
  return grant
}

const provider = new Provider(issuer, {
  clients,
  jwks: { keys: [privateJwk('RSA'), privateJwk('EC')] },
  cookies: { keys: ['only-for-tests'] },
  pkce: { required: () => true },
  acrValues: ['urn:example:aal2', 'urn:example:aal3'],
  claims: { openid: ['sub', 'acr', 'amr', 'auth_time'], profile: ['name', 'preferred_username', 'groups'], email: ['email', 'email_verified'] },
  features: {
    devInteractions: { enabled: pages },
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
    users[id] && { accountId: id, claims: () => ({ sub: id, preferred_username: id, email_verified: true, groups: [], ...users[id] }) },
  ...(pages ? {} : { interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` }, loadExistingGrant: consented }),
})
provider.on('server_error', (_ctx, error) => console.error('server_error', error))

async function hinted(request, response) {
  try {
    const { params } = await provider.interactionDetails(request, response)
    const login = { accountId: params.login_hint, acr: params.acr_values?.split(' ')[0] ?? 'urn:example:aal2', amr: ['pwd', 'otp'] }
    await provider.interactionFinished(request, response, { login }, { mergeWithLastSubmission: false })
  } catch (error) {
    response.writeHead(400, { 'content-type': 'text/plain' })
    response.end(String(error))
  }
}

const answer = provider.callback()
server.on('request', (request, response) => (!pages && request.url.startsWith('/interaction/') ? hinted : answer)(request, response))
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume() // ends with whoever started it
console.log(JSON.stringify({ issuer, port }))
