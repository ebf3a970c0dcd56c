// An OpenID provider for the interop tests: `oidc-provider` as it comes, on a free loopback port.
//
// Its one argument is JSON: `audience`, `scopes`, `tenant`, `algorithms`, `secret`, `redirect`, `service`. It
// says on standard output, one line of JSON at a time, what it has become: when it is ready, and after each command.
// Commands are lines of standard input: `rotate` signs with new keys and goes on publishing the old ones,
// `withdraw` publishes the newest only. It ends when standard input does, so a test cannot leave it behind.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

const { audience, scopes, tenant, algorithms, secret, redirect, service } = JSON.parse(process.argv.at(-1));

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519'],
};
const makeKey = (alg) => ({ ...generateKeyPairSync(...KINDS[alg]).privateKey.export({ format: 'jwk' }), alg });
const makeKeys = () => algorithms.map(makeKey);

// What a client's ID tokens are signed with, its access tokens are too: so there is a client per algorithm.
const job = (alg, index) => ({
  client_id: index === 0 ? 'job' : `job-${alg.toLowerCase()}`,
  client_secret: secret,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: alg,
});
const web = {
  client_id: 'web',
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: [redirect],
  response_types: ['code'],
  id_token_signed_response_alg: algorithms[0],
};

// The client of browser sessions.
const bff = {
  client_id: 'bff',
  client_secret: secret,
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: [`${service}/auth/callback`],
  post_logout_redirect_uris: [`${service}/`],
  backchannel_logout_uri: `${service}/auth/backchannel-logout`,
  backchannel_logout_session_required: true,
  response_types: ['code'],
  id_token_signed_response_alg: algorithms[0],
};

const configuration = {
  clients: [web, bff, ...algorithms.map(job)],
  scopes: ['openid', 'offline_access', ...scopes],
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // `writer@acme.example` has the role writer.
  extraTokenClaims: (ctx, { kind, accountId }) => ({
    tenant_id: tenant,
    roles: kind === 'AccessToken' ? [accountId.split('@')[0]] : undefined,
  }),
  cookies: { keys: [randomUUID()] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  // Logout tokens go to a loopback address, which its dispatcher would refuse.
  fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
  // By default, a client gets a refresh token only with `prompt=consent`.
  issueRefreshToken: (ctx, client, code) => client.clientId === 'bff' || code.scopes.has('offline_access'),
  features: {
    // A login page that believes every name, and a page of consent.
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      // It knows every API there is; which one a token is for, the request says.
      getResourceServerInfo: (ctx, resource, client) => ({
        audience: resource,
        scope: scopes.join(' '),
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: client.idTokenSignedResponseAlg } },
      }),
    },
  },
};

// The port is known before the issuer's name has to be.
let handle;
const server = createServer((request, response) => handle(request, response)).listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

// A provider reads its keys once. So other keys are another one in its place, as after a restart, but that
// the grants, which its package keeps in memory, outlive it.
let keys = [];
const become = (newKeys) => {
  keys = newKeys;
  handle = new Provider(issuer, { ...configuration, jwks: { keys } }).callback();
  console.log(JSON.stringify({ issuer, keys: keys.length }));
};

become(makeKeys());
for await (const command of createInterface({ input: process.stdin })) {
  become(command === 'rotate' ? [...makeKeys(), ...keys] : keys.slice(0, algorithms.length));
}
process.exit();
