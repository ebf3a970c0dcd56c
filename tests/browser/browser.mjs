// Drives Chromium through the demo page and the docs page, one scenario per run.
//
// The one argument is JSON: `scenario`, `app`, `issuer` (base URLs), `chromium` (a path), `screenshots` (a
// folder). A failed assertion ends the run with status 1. tests/suite/browser.rs starts it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';

import { chromium } from 'playwright-core';

const { scenario, app, issuer, chromium: executablePath, screenshots } = JSON.parse(process.argv.at(-1));
const COOKIE = '__Host-session';
const SALES = 'sales@acme.example';

// A run that hangs is a failure. Its browser ends with this process.
setTimeout(() => {
  console.error('no end after 90 s');
  process.exit(1);
}, 90_000).unref();

// The browser visits pages of the tests only, and root cannot use the sandbox.
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });

/** Everything that the service sent to the browser: headers and bodies. */
const received = [];
/** What the browser refused because of a policy of the page. */
const violations = [];

/** A new browser profile with one page. */
async function open() {
  const context = await browser.newContext({ viewport: { width: 1100, height: 1000 } });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.on('response', async (response) => {
    if (!response.url().startsWith(app)) return;
    // Redirects have no body.
    const body = await response.text().catch(() => '');
    const headers = await response.allHeaders().catch(() => ({}));
    received.push({ url: response.url(), text: `${JSON.stringify(headers)}\n${body}` });
  });
  page.on('console', (line) => {
    if (/Content Security Policy|Trusted/.test(line.text())) violations.push(line.text());
  });
  return { context, page };
}

async function signIn(page, person = SALES, path = '/demo') {
  await page.goto(app + path);
  await page.click('#sign-in');
  await page.click(`button[value="${person}"]`);
  await page.waitForURL(app + path);
  await page.waitForSelector('#sign-out:visible');
}

const picture = (page, name) => page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });
const sessionCookie = async (context) => (await context.cookies(app)).find((cookie) => cookie.name === COOKIE);
const message = (page, text) => page.locator('#message', { hasText: text }).waitFor();

/** Sends a request as a script of the page. Returns the status, or the error of the browser. */
const send = (page, path, options = {}) => page.evaluate(async ([url, init]) => {
  try {
    return (await fetch(url, init)).status;
  } catch (error) {
    return String(error);
  }
}, [path, options]);

const csrfToken = (page) => page.evaluate(async () => (await (await fetch('/auth/session')).json()).csrfToken);

const countOrders = (page) => page.evaluate(async () => {
  const response = await fetch('/v1/orders?limit=100');
  return (await response.json()).items.length;
});

const order = JSON.stringify({ lines: [{ sku: 'PAPER-A4', quantity: 1 }], shippingSpeed: 'standard' });
const json = { 'Content-Type': 'application/json' };

/** A page of an attacker on this host, with a script. Its text is the outcome. */
async function attack(context, host, html) {
  const server = createServer((_, response) => response.setHeader('content-type', 'text/html').end(html));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const page = await context.newPage();
  const sent = [];
  page.on('request', (request) => request.url().startsWith(app) && sent.push(request));
  await page.goto(`http://${host}:${server.address().port}/`);
  return { page, sent, close: () => server.close() };
}

/** No token of the issuer is in anything that reached the browser from the service, or is stored. */
async function assertNoToken(page) {
  const stored = await page.evaluate(async () => JSON.stringify([
    { ...localStorage }, { ...sessionStorage }, document.cookie, document.documentElement.outerHTML,
    (await indexedDB.databases()).length, await caches.keys(),
  ]));
  assert.ok(received.length > 10, 'responses were recorded');
  for (const { url, text } of [...received, { url: 'storage of the page', text: stored }]) {
    // JSON Web Tokens begin with `{"` in Base64; refresh tokens of the issuer are a digest, a dot and 43 characters.
    assert.doesNotMatch(text, /eyJ[\w-]{10,}\.[\w-]+/, url);
    assert.doesNotMatch(text, /[0-9a-f]{64}\.[\w-]{43}/, url);
    assert.doesNotMatch(text, /\b(access|refresh|id)_token/, url);
  }
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
}

const scenarios = {
  async session() {
    const { context, page } = await open();
    await page.goto(`${app}/demo`);
    await page.waitForSelector('#welcome:visible');
    await picture(page, 'signed-out');
    await page.setViewportSize({ width: 390, height: 844 });
    await picture(page, 'signed-out-narrow');
    await page.setViewportSize({ width: 1100, height: 1000 });
    assert.equal(await sessionCookie(context), undefined);
    await signIn(page);
    const cookie = await sessionCookie(context);
    assert.ok(cookie, 'a session cookie');
    const { httpOnly, secure, sameSite, path, domain } = cookie;
    assert.deepEqual(
      { httpOnly, secure, sameSite, path, domain },
      { httpOnly: true, secure: true, sameSite: 'Lax', path: '/', domain: new URL(app).hostname },
    );
    for (const other of await context.cookies(app)) assert.ok(other.httpOnly && other.secure, other.name);

    await page.fill('input[name=quantity]', '4');
    await page.click('#order button');
    await message(page, 'Order placed');
    await page.waitForSelector('#orders td:has-text("4 × ")');
    await picture(page, 'order-placed');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture(page, 'order-placed-dark');

    const before = await countOrders(page);
    const body = { method: 'POST', headers: json, body: order };
    assert.equal(await send(page, '/v1/orders', body), 403, 'without the CSRF token');
    const token = await csrfToken(page);
    for (const wrong of ['', 'wrong', token.slice(0, -1), token.toUpperCase()]) {
      const headers = { ...json, 'X-CSRF-Token': wrong };
      assert.equal(await send(page, '/v1/orders', { ...body, headers }), 403, wrong);
    }
    const both = { headers: { Authorization: 'Bearer x.y.z' } };
    assert.equal(await send(page, '/v1/orders', both), 400, 'two credentials');
    assert.equal(await countOrders(page), before);
    assert.equal(await send(page, '/v1/orders', { ...body, headers: { ...json, 'X-CSRF-Token': token } }), 201);
    assert.equal(await countOrders(page), before + 1);
    await assertNoToken(page);

    // A new sign-in in the same browser replaces the session.
    await page.goto(`${app}/auth/login?return_to=/demo`);
    await page.click(`button[value="${SALES}"]`);
    await page.waitForSelector('#sign-out:visible');
    assert.notEqual((await sessionCookie(context)).value, cookie.value);
    assert.deepEqual(violations, []);
  },

  async refresh() {
    const { page } = await open();
    await signIn(page);
    await page.click('#refresh');
    await message(page, 'Refreshed');
    await picture(page, 'refreshed');
    const token = await csrfToken(page);
    const refresh = { method: 'POST', headers: { 'X-CSRF-Token': token } };
    const statuses = await Promise.all(Array.from({ length: 6 }, () => send(page, '/auth/refresh', refresh)));
    assert.deepEqual(statuses, Array(6).fill(200), 'parallel refreshes');
    assert.equal(await send(page, '/auth/refresh', { method: 'POST' }), 403, 'without the CSRF token');
    assert.equal(await send(page, '/auth/session'), 200);
    await page.click('#order button');
    await message(page, 'Order placed');
    await assertNoToken(page);
  },

  async 'sign-out'() {
    const first = await open();
    const second = await open();
    await signIn(first.page);
    await signIn(second.page);
    await first.page.reload();
    await first.page.waitForSelector('#sessions tbody tr:nth-child(2)');
    await picture(first.page, 'sessions');
    await first.page.click('#sessions button:enabled');
    await message(first.page, 'The session has ended');
    await second.page.click('#order button');
    await message(second.page, 'Sign in again');
    await picture(second.page, 'session-ended');

    const { value } = await sessionCookie(first.context);
    await first.page.click('#sign-out');
    await first.page.waitForSelector('#sign-in:visible');
    await picture(first.page, 'signed-out-again');
    assert.equal(await sessionCookie(first.context), undefined);
    // The cookie of before, as a thief would send it.
    const stolen = { name: COOKIE, value, httpOnly: true, secure: true, sameSite: 'Lax' };
    await first.context.addCookies([{ ...stolen, url: app.replace('http:', 'https:') }]);
    assert.equal(await send(first.page, '/auth/session'), 401, 'a cookie after sign-out');
    await assertNoToken(first.page);
  },

  async 'cross-site'() {
    const { context, page } = await open();
    await signIn(page);
    const before = await countOrders(page);
    const attempts = `<script>
      const attempt = async (path, options) => {
        try {
          const response = await fetch('${app}' + path, { credentials: 'include', ...options });
          return response.type + ' ' + response.status;
        } catch {
          return 'refused';
        }
      };
      const order = ${JSON.stringify(order)};
      Promise.all([
        attempt('/auth/session'), attempt('/v1/orders'),
        attempt('/v1/orders', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: order }),
        attempt('/v1/orders', { method: 'POST', mode: 'no-cors', body: order }),
        attempt('/auth/logout', { method: 'POST', mode: 'no-cors' }),
        attempt('/auth/refresh', { method: 'POST', mode: 'no-cors' }),
      ]).then((outcomes) => { document.body.dataset.outcomes = outcomes.join(); });
    </script>`;
    // Another site (`localhost`), and another port of the same site, which gets the cookie.
    for (const host of ['localhost', '127.0.0.1']) {
      const fetches = await attack(context, host, attempts);
      await fetches.page.waitForSelector('body[data-outcomes]');
      const outcomes = (await fetches.page.getAttribute('body', 'data-outcomes')).split(',');
      // Also without CORS: `Cross-Origin-Resource-Policy` keeps responses from other origins.
      assert.deepEqual(outcomes, Array(6).fill('refused'), host);
      const statuses = await Promise.all(fetches.sent.map(async (request) => (await request.response())?.status()));
      assert.ok(statuses.every((status) => status === undefined || status >= 400), `${host}: ${statuses}`);
      fetches.close();
      for (const path of ['/v1/orders', '/auth/logout', '/auth/refresh']) {
        // A form can send JSON as text. The other operations take no body.
        const field = path === '/v1/orders' ? `<input name='${order.slice(0, -1)},"x":"' value='"}'>` : '';
        const form = await attack(context, host, `<form method="post" enctype="text/plain" action="${app}${path}">
          ${field}<button>prize</button></form>`);
        const [response] = await Promise.all([form.page.waitForResponse(app + path), form.page.click('button')]);
        assert.ok([401, 403].includes(response.status()), `${host} ${path}: ${response.status()}`);
        form.close();
      }
      const link = await attack(context, host, `<a href="${app}/v1/orders">prize</a>`);
      const [response] = await Promise.all([link.page.waitForResponse(`${app}/v1/orders`), link.page.click('a')]);
      assert.ok([401, 403].includes(response.status()), `link on ${host}: ${response.status()}`);
      link.close();
    }
    const framed = await attack(context, 'localhost', `<iframe src="${app}/demo"></iframe>`);
    await framed.page.waitForTimeout(500);
    assert.equal(await framed.page.frames()[1].locator('#sign-out').count(), 0, 'no page frames the demo');
    framed.close();
    // Sign-in with a code of the attacker: the browser did not begin it.
    const forged = await page.context().newPage();
    const callback = await forged.goto(`${app}/auth/callback?code=stolen&state=forged&iss=${issuer}`);
    assert.equal(callback.status(), 401, 'a callback that no sign-in asked for');

    assert.equal(await send(page, '/auth/session'), 200, 'the session goes on');
    assert.equal(await countOrders(page), before, 'no order');
    await assertNoToken(page);
  },
};

Object.assign(scenarios, {
  // The test ends the session of the first person at the issuer once both are signed in.
  async 'back-channel'() {
    const first = await open();
    const second = await open();
    await signIn(first.page);
    await signIn(second.page, 'viewer@acme.example');
    let text = '';
    for (let tries = 0; tries < 100 && !text.includes('Sign in again'); tries += 1) {
      // The end may arrive between two steps: then there is no button.
      await first.page.click('#refresh', { timeout: 1_000 }).catch(() => {});
      await first.page.waitForTimeout(100);
      text = await first.page.textContent('#message');
    }
    assert.match(text, /Sign in again/);
    await picture(first.page, 'signed-out-by-the-issuer');
    assert.equal(await send(first.page, '/v1/orders'), 401);
    assert.equal(await send(second.page, '/v1/orders'), 200, 'another session goes on');
  },

  async docs() {
    const { page } = await open();
    await page.goto(`${app}/docs`);
    await page.waitForSelector('.opblock');
    await signIn(page, SALES, '/docs');
    await page.waitForSelector('.opblock');
    for (const [method, path, status] of [['get', '/v1/products', '200'], ['post', '/v1/orders', '201']]) {
      const block = page.locator(`.opblock-${method}`, { has: page.locator(`[data-path="${path}"]`) });
      await block.locator('.opblock-summary-control').click();
      await block.locator('.try-out__btn').click();
      await block.locator('.execute').click();
      await block.locator('.live-responses-table .response-col_status', { hasText: status }).first().waitFor();
      await block.scrollIntoViewIfNeeded();
      await page.screenshot({ path: `${screenshots}/docs-${method}.png` });
      await block.locator('.opblock-summary-control').click();
    }
    await page.click('.btn.authorize');
    await page.waitForSelector('.auth-container');
    assert.doesNotMatch(await page.locator('.dialog-ux').innerText(), /openIdConnect|__Host-session/);
    await page.screenshot({ path: `${screenshots}/docs-authorize.png` });
    assert.deepEqual(violations, []);
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
    await page.click('.close-modal');
    await page.click('#sign-out');
    await page.waitForURL(`${app}/`);
    assert.equal(await send(page, '/auth/session'), 401);
  },
});

try {
  await scenarios[scenario]();
} finally {
  await browser.close();
}
