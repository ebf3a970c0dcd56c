// The bar of the documentation page: sign-in by a browser session, so that "Try it out" has a
// caller. `addCsrfToken` sees every request of the page before it is sent.
let csrfToken;

async function showSession() {
  const response = await fetch('/auth/session');
  const session = response.ok ? await response.json() : undefined;
  csrfToken = session?.csrfToken;
  document.getElementById('who').textContent = session ? `Signed in as ${session.user}` : '';
  document.getElementById('sign-in').hidden = Boolean(session);
  document.getElementById('sign-out').hidden = !session;
}

function addCsrfToken(request) {
  const names = Object.keys(request.headers).map((name) => name.toLowerCase());
  if (names.includes('authorization') || names.includes('x-api-key')) {
    // One credential for each request: the one of "Authorize" takes precedence.
    request.credentials = 'omit';
  } else if (csrfToken && request.method !== 'GET') {
    request.headers['X-CSRF-Token'] = csrfToken;
  }
  return request;
}

document.getElementById('sign-out').addEventListener('click', async () => {
  const response = await fetch('/auth/logout', { method: 'POST', headers: { 'X-CSRF-Token': csrfToken } });
  const { endSessionUrl } = response.ok ? await response.json() : {};
  if (endSessionUrl) location.assign(endSessionUrl);
  else showSession();
});
showSession();
