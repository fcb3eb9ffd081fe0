// A person who signs in, played by a script: opens URL, fills every form the provider shows, and stops at a
// page without one. Prints one JSON object: {"status", "url", "text"} of the last page.
//
//   node person.mjs URL USER            plain HTTP with cookies, no browser
//   node person.mjs URL USER --elsewhere  the same on another machine, where nothing of ours listens
//   CHROMIUM=... node person.mjs URL USER --chromium [SCREENSHOT]
//
// USER "-" says no on the consent page.
import http from 'node:http';

import { npm } from '../npm.mjs';

const [url, user, browser, screenshot] = process.argv.slice(2);
const result = browser === '--chromium' ? await inChromium() : await byHttp();
console.log(JSON.stringify(result));

async function byHttp() {
  const jars = {};
  let next = { url, method: 'GET' };
  for (let step = 0; step < 30; step++) {
    const host = new URL(next.url).host;
    const jar = (jars[host] ??= new Map());
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...(cookie && { cookie }), ...next.headers };
    const answer = await request({ ...next, headers });
    for (const line of answer.headers['set-cookie'] ?? []) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      value ? jar.set(name, value) : jar.delete(name);
    }
    const to = answer.headers.location;
    if (to) {
      next = { url: new URL(to, next.url).href, method: 'GET' };
      // The address bar of a browser that cannot connect.
      if (browser === '--elsewhere' && new URL(next.url).pathname === '/callback') return { status: 0, url: next.url, text: '' };
      continue;
    }
    const { text } = answer;
    const form = findForm(text, next.url);
    if (!form) return { status: answer.status, url: next.url, text };
    next = form;
  }
  throw new Error('no end of pages');
}

// Not `fetch`, which says `Sec-Fetch-Mode: cors`: a script's request, and refused as one.
function request({ url, method, headers, body }) {
  return new Promise((resolve, reject) => {
    const sent = http.request(url, { method, headers }, async (answer) => {
      const chunks = await answer.toArray();
      resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(chunks).toString() });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

function findForm(html, base) {
  const [, attributes, inside] = html.match(/<form([^>]*)>([\s\S]*?)<\/form>/i) ?? [];
  if (inside === undefined) return undefined;
  const abort = html.match(/href="([^"]*\/abort)"/);
  if (user === '-' && abort) return { url: new URL(abort[1], base).href, method: 'GET' };
  const attribute = (text, name) => text.match(new RegExp(`${name}="([^"]*)"`))?.[1];
  const fields = new URLSearchParams();
  for (const [tag] of inside.matchAll(/<input[^>]*>/gi)) {
    const name = attribute(tag, 'name');
    if (name) fields.set(name, attribute(tag, 'value') ?? user);
  }
  return {
    url: new URL(attribute(attributes, 'action')?.replaceAll('&amp;', '&') ?? base, base).href,
    method: 'POST',
    body: fields.toString(),
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  };
}

async function inChromium() {
  const { chromium } = npm('playwright-core');
  const run = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await run.newPage({ viewport: { width: 900, height: 560 } });
    const hosts = new Set();
    let status;
    page.on('request', (request) => {
      const from = new URL(request.frame().url() || 'about:blank');
      if (from.pathname === '/callback') hosts.add(new URL(request.url()).host);
    });
    page.on('response', (answer) => {
      if (answer.request().isNavigationRequest()) status = answer.status();
    });
    await page.goto(url);
    for (let step = 0; step < 20; step++) {
      const form = page.locator('form');
      if (!(await form.count())) break;
      for (const name of ['login', 'password']) {
        const field = form.locator(`input[name=${name}]`);
        if (await field.count()) await field.fill(user);
      }
      const submit = form.locator('[type=submit]').first();
      await Promise.all([page.waitForNavigation(), submit.click()]);
    }
    if (screenshot) await page.screenshot({ path: screenshot });
    const text = await page.content();
    return { status, url: page.url(), text, hosts: [...hosts] };
  } finally {
    await run.close();
  }
}
