import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { selfMadeCertificate } from './certificate.suite.ts';
import { checkRequest, isLoopback, type RequestFacts } from './request-checks.ts';
import { RateLimit } from './rate-limit.ts';

const certificate = new X509Certificate(selfMadeCertificate().cert);
const facts = (given: Partial<RequestFacts>): RequestFacts =>
  ({ method: 'POST', host: '127.0.0.1:7780', origin: undefined, fetchSite: undefined, secure: false, ...given });

const rows: [name: string, given: Partial<RequestFacts>, tls: boolean, code: string | null][] = [
  ['a program without Origin is let in', {}, false, null],
  ['the own page is let in', { origin: 'http://127.0.0.1:7780', fetchSite: 'same-origin' }, false, null],
  ['a page under a forwarded port is let in', { host: 'localhost:9999', origin: 'http://localhost:9999' }, false, null],
  ['a page of another site is refused', { origin: 'https://evil.example' }, false, 'FOREIGN_ORIGIN'],
  ['a page at another port is refused', { origin: 'http://127.0.0.1:8080' }, false, 'FOREIGN_ORIGIN'],
  ['a page without an origin of its own is refused', { origin: 'null' }, false, 'FOREIGN_ORIGIN'],
  ['https is another origin than http', { origin: 'https://127.0.0.1:7780' }, false, 'FOREIGN_ORIGIN'],
  ['a form that hides its Origin is refused', { fetchSite: 'cross-site' }, false, 'FOREIGN_ORIGIN'],
  ['a sibling site is refused', { fetchSite: 'same-site' }, false, 'FOREIGN_ORIGIN'],
  ['a link on another site may open the page', { method: 'GET', fetchSite: 'cross-site' }, false, null],
  ['a name that was pointed at us is refused', { host: 'evil.example:7780', origin: 'http://evil.example:7780' }, false, 'FOREIGN_HOST'],
  ['no name at all is refused', { host: undefined }, false, 'FOREIGN_HOST'],
  ['the name in the certificate is ours', { host: 'berlin.example:7780', origin: 'https://berlin.example:7780', secure: true }, true, null],
  ['the address in the certificate is ours', { host: '10.9.8.7:7780', secure: true }, true, null],
  ['a name beside the certificate is refused', { host: 'munich.example:7780', secure: true }, true, 'FOREIGN_HOST'],
];
for (const [name, given, tls, code] of rows) {
  test(name, () => {
    const check = () => checkRequest(facts(given), tls ? certificate : null);
    if (code === null) check();
    else assert.throws(check, { code });
  });
}

test('loopback is loopback, and nothing else is', () => {
  for (const host of ['127.0.0.1', '127.9.9.9:80', 'localhost', 'LOCALHOST:1', '[::1]:7780', '::1']) assert.equal(isLoopback(host), true, host);
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.evil.example', 'localhost.evil.example', '']) assert.equal(isLoopback(host), false, host);
});

test('a bucket gives its burst, then one after the other, each key for itself', () => {
  const limit = new RateLimit({ burst: 2, perSecond: 0.5, keysMax: 2 });
  assert.deepEqual([limit.take('a', 0), limit.take('a', 0), limit.take('a', 0)], [0, 0, 2]);
  assert.equal(limit.take('b', 0), 0);
  assert.equal(limit.take('a', 1000), 1);
  assert.equal(limit.take('a', 2000), 0);
});
