// A browser client of the API, without a framework: an example for front-end teams.
//
// The page has no token. Signing in leaves a session cookie that scripts cannot read, and the browser
// sends it with every request to this origin. What the page keeps in memory is the CSRF token: a
// request that changes something carries it, which a page of another site cannot do.
//
// Texts of the API reach the page as text (`textContent`), never as HTML.

/** @type {{user: string, csrfToken: string, accessExpiresAt: string} | null} */
let session = null;

const $ = (selector) => document.querySelector(selector);

/** An error response: a problem document (RFC 9457). The log of the service has its `traceId`. */
class Problem extends Error {
  constructor(status, body) {
    super(`${body.title ?? 'The request failed'} (${body.code ?? status}, trace ${body.traceId ?? 'unknown'})`);
    this.status = status;
    this.code = body.code;
  }
}

/** Calls the API, and returns the body of the response. Throws a `Problem`. */
async function call(method, path, { body, idempotencyKey, retries = 2 } = {}) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (idempotencyKey) headers['Idempotency-Key'] = idempotencyKey;
  if (method !== 'GET' && session) headers['X-CSRF-Token'] = session.csrfToken;
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: 'same-origin',
  });
  record(method, path, response);
  // Busy or over a limit: the response says when to try again. A change is repeated only if its
  // idempotency key makes that safe.
  const mayRepeat = method === 'GET' || idempotencyKey;
  if ([429, 503].includes(response.status) && mayRepeat && retries > 0) {
    const seconds = Number(response.headers.get('Retry-After') ?? 1);
    if (seconds <= 5) {
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      return call(method, path, { body, idempotencyKey, retries: retries - 1 });
    }
  }
  const text = await response.text();
  const json = text ? JSON.parse(text) : null;
  if (!response.ok) throw new Problem(response.status, json ?? {});
  return json;
}

/** Reads the session, and shows the page for it. */
async function loadSession() {
  try {
    session = await call('GET', '/auth/session');
  } catch (error) {
    if (error.status !== 401) throw error;
    session = null;
  }
  showSession();
}

/** The service renews its tokens at the issuer. Afterwards the CSRF token may be another one. */
async function refresh() {
  await call('POST', '/auth/refresh');
  await loadSession();
}

/**
 * Refreshes if the access token ends within a minute. Called when the person does something, and by no
 * timer: that would keep the session of a person who left.
 */
async function refreshIfDue() {
  if (!session || Date.parse(session.accessExpiresAt) - Date.now() > 60_000) return;
  // While the issuer is away, the session goes on until the token ends.
  await refresh().catch((error) => { if (error.status === 401) throw error; });
}

async function placeOrder(event) {
  const form = event.target;
  const order = {
    lines: [{ sku: form.sku.value, quantity: form.quantity.valueAsNumber }],
    shippingSpeed: form.shippingSpeed.value,
  };
  // One key for one intention: a repetition of this request places no second order.
  const placed = await call('POST', '/v1/orders', { body: order, idempotencyKey: crypto.randomUUID() });
  say(`Order placed: ${money(placed.total)}`);
  await loadOrders();
}

async function loadProducts() {
  const { items } = await call('GET', '/v1/products?limit=20');
  const option = (product) => new Option(`${product.name}, ${money(product.price)}`, product.sku);
  $('#order').sku.replaceChildren(...items.map(option));
}

async function loadOrders() {
  const { items } = await call('GET', '/v1/orders?limit=5');
  $('#orders tbody').replaceChildren(...items.map((order) => row(
    time(order.createdAt),
    order.lines.map((line) => `${line.quantity} × ${line.sku}`).join(', '),
    order.status,
    element('td', money(order.total), 'number'),
  )));
}

async function loadSessions() {
  const { items } = await call('GET', '/v1/me/sessions');
  $('#sessions tbody').replaceChildren(...items.map((item) => {
    const end = element('button', item.current ? 'This one' : 'End');
    end.disabled = item.current;
    end.addEventListener('click', run(async () => {
      await call('DELETE', `/v1/me/sessions/${item.id}`);
      say('The session has ended. Its next request gets 401.');
      await loadSessions();
    }));
    const action = element('td');
    action.append(end);
    return row(item.userAgent, item.network, time(item.createdAt), time(item.lastUsedAt), action);
  }));
}

/** Ends the session here, then at the issuer. */
async function signOut() {
  const { endSessionUrl } = await call('POST', '/auth/logout');
  if (endSessionUrl) {
    location.assign(endSessionUrl);
  } else {
    await loadSession();
  }
}

function showSession() {
  for (const part of document.querySelectorAll('.signed-in')) part.hidden = !session;
  $('#welcome').hidden = Boolean(session);
  $('#sign-in').hidden = Boolean(session);
  $('#sign-out').hidden = !session;
  $('#who').textContent = session ? `Signed in as ${session.user}` : '';
  if (!session) return;
  const facts = {
    Tenant: session.tenantId,
    Roles: session.roles.join(', '),
    Scopes: session.scopes.join(', '),
    'Signed in': time(session.createdAt),
    'Token ends': time(session.accessExpiresAt),
    'Idle until': time(session.idleExpiresAt),
    'Session ends': time(session.expiresAt),
  };
  $('#session').replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element('dt', name), element('dd', value)]));
}

/** Shows a request in the list at the bottom. Its id is also in the log of the service. */
function record(method, path, response) {
  const line = `${method} ${path} → ${response.status}  ${response.headers.get('X-Request-Id') ?? ''}`;
  $('#requests').prepend(element('li', line, response.ok ? '' : 'bad'));
  while ($('#requests').children.length > 12) $('#requests').lastChild.remove();
}

function say(text, isBad = false) {
  $('#message').textContent = text;
  $('#message').className = isBad ? 'bad' : '';
}

/** An event handler that shows what goes wrong. After the end of the session it shows the sign-in. */
function run(action) {
  return async (event) => {
    // The browser would send the form itself.
    event?.preventDefault();
    try {
      await refreshIfDue();
      await action(event);
    } catch (error) {
      say(error.status === 401 ? 'The session has ended. Sign in again.' : error.message, true);
      if (error.status === 401) {
        session = null;
        showSession();
      }
    }
  };
}

function element(name, text = '', className = '') {
  const created = document.createElement(name);
  created.textContent = text;
  if (className) created.className = className;
  return created;
}

function row(...cells) {
  const created = document.createElement('tr');
  created.append(...cells.map((cell) => (cell instanceof Node ? cell : element('td', cell))));
  return created;
}

const time = (text) => new Date(text).toLocaleString(undefined, { dateStyle: 'short', timeStyle: 'medium' });

/** Amounts are integers in minor units (ISO 4217). */
function money({ amount, currency }) {
  const format = new Intl.NumberFormat(undefined, { style: 'currency', currency });
  return format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
}

$('#order').addEventListener('submit', run(placeOrder));
$('#refresh').addEventListener('click', run(async () => {
  await refresh();
  say('Refreshed: the session goes on with a new access token.');
}));
$('#sign-out').addEventListener('click', run(signOut));

await run(async () => {
  await loadSession();
  if (session) await Promise.all([loadProducts(), loadOrders(), loadSessions()]);
})();
