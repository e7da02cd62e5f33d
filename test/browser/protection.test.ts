/** What must not work, tried with a real browser; and what the page does when its server goes away. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { truncate, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import { inspect, TestBrowser } from './browser.ts';

const PAGE_BYTES_MAX = 250 * 1024;
const EVIL = `<img src=x onerror=alert(1)>'"&{{7*7}}`;

test('wrong tokens, foreign pages, scripts in names, ended sessions, a restart', async (t) => {
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t);
  const server = new TestServer('berlin', join(folder, 'berlin'));
  atEnd(t, () => server.kill9());
  answerInside(server);
  await server.start();
  const address = `http://${server.httpAddress}`;

  await t.test('a wrong token is refused, and the page says how to get a right one', async () => {
    const page = await (await browser.context()).newPage();
    await page.goto(`${address}/#token=wrong`);
    await page.getByText(/this sign-in token is unknown/).waitFor();
    await page.getByLabel('Or paste the link or its token here').fill('guess');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('TOKEN_INVALID').waitFor();
    await inspect(page, 'sign-in');
    const { url } = await server.json<{ url: string }>('console');
    await page.getByLabel('Or paste the link or its token here').fill(url);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('No virtual machine yet').waitFor();
    await page.context().close();
  });

  await t.test('a page of another site can neither read nor change, with a session in the same browser', async () => {
    const context = await browser.context();
    await browser.signedIn(server, [], context);
    const stranger = createServer((_request, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>stranger</title>'));
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    atEnd(t, () => {
      stranger.close();
      stranger.closeAllConnections();
    });
    const { port } = stranger.address() as { port: number };
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${port}/`);
    const result = await page.evaluate(async (target) => {
      const tries: Record<string, RequestInit> = {
        json: { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}', credentials: 'include' },
        form: { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{}', credentials: 'include', mode: 'no-cors' },
        read: { credentials: 'include' },
      };
      const found: Record<string, string> = {};
      for (const [name, init] of Object.entries(tries)) {
        const path = name === 'read' ? '/session' : '/api/v1/vm.list';
        found[name] = await fetch(target + path, init).then((answer) => `${answer.type} ${answer.status}`, () => 'refused');
      }
      return found;
    }, address);
    assert.deepEqual(result, { json: 'refused', form: 'refused', read: 'refused' });
    await context.close();
  });

  await t.test('a script in a name of a VM stays text', async () => {
    const disk = join(folder, 'disk.raw');
    await writeFile(disk, '');
    await truncate(disk, 1 << 20);
    await server.json('vm', 'add', EVIL, '--disk', disk);
    const page = await browser.signedIn(server);
    let dialogs = 0;
    page.on('dialog', (dialog) => {
      dialogs++;
      void dialog.dismiss();
    });
    await page.getByRole('link', { name: EVIL }).click();
    await page.getByRole('heading', { name: EVIL }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: EVIL }).waitFor();
    assert.equal(await page.title(), `${EVIL} – berlin – Understudy`);
    assert.equal(dialogs, 0);
    assert.equal(await page.locator('main img').count(), 0);
    await page.context().close();
  });

  await t.test('a reader sees everything and is offered nothing', async () => {
    const page = await browser.signedIn(server, ['--read-only']);
    await page.getByText('Read only').waitFor();
    await page.getByRole('link', { name: EVIL }).click();
    await page.getByRole('heading', { name: EVIL }).waitFor();
    for (const name of ['Pause', 'Verify', 'Remove replication…']) assert.equal(await page.getByRole('button', { name }).count(), 0);
    const status = await page.evaluate(async () => (await fetch('/api/v1/vm.remove', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"name":"x"}' })).status);
    assert.equal(status, 403);
    await page.context().close();
  });

  await t.test('an ended session leads to the sign-in, by itself', async () => {
    const page = await browser.signedIn(server);
    await server.json('console', '--end-sessions');
    await page.getByText('Your session has ended. Sign in again to go on.').waitFor();
    const short = await browser.signedIn(server, ['--session', '0.002']);
    await short.getByText('Your session has ended. Sign in again to go on.').waitFor();
    await Promise.all([page.context().close(), short.context().close()]);
  });

  await t.test('a restart of the server: the page says so, and goes on without a reload', async () => {
    const page = await browser.signedIn(server);
    await page.getByRole('link', { name: EVIL }).waitFor();
    await server.kill9();
    await page.getByText(/The server does not answer/).waitFor();
    await inspect(page, 'server-gone');
    await server.start();
    await page.getByText('The server was restarted. The page is connected again.').waitFor();
    assert.equal(await page.getByText(/The server does not answer/).count(), 0);
    await page.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('link', { name: EVIL }).click();
    await page.getByRole('heading', { name: EVIL }).waitFor();
    await page.context().close();
  });
  assert.deepEqual(browser.complaints, []);
});

test('the page weighs at most 250 KiB, as it comes over the wire, and nothing comes from elsewhere', async (t) => {
  const browser = await TestBrowser.start(t);
  const server = new TestServer('berlin', join(await temporaryFolder(t), 'berlin'));
  atEnd(t, () => server.kill9());
  answerInside(server);
  await server.start();
  const page = await (await browser.context()).newPage();
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  let [bytes, requests] = [0, 0];
  const foreign: string[] = [];
  session.on('Network.loadingFinished', ({ encodedDataLength }) => {
    bytes += encodedDataLength;
    requests++;
  });
  session.on('Network.requestWillBeSent', ({ request: { url } }) => {
    if (!url.startsWith(`http://${server.httpAddress}/`)) foreign.push(url);
  });
  const { url } = await server.json<{ url: string }>('console');
  await page.goto(url);
  await page.getByText('No virtual machine yet').waitFor();
  for (const name of ['Queue', 'Events', 'Peers']) await page.getByRole('navigation').getByRole('link', { name }).click();
  await page.getByRole('img', { name: /QR code/ }).waitFor();
  t.diagnostic(`${requests} answers, ${bytes} bytes with their headers`);
  assert.ok(requests >= 4 && bytes > 50_000 && bytes <= PAGE_BYTES_MAX, `${bytes} bytes in ${requests} answers`);
  assert.deepEqual(foreign, []);
  const files = globSync('web/dist/**/*.{html,js,css,svg}');
  const weight = files.reduce((sum, file) => sum + gzipSync(readFileSync(file)).length, 0);
  t.diagnostic(`${files.length} files, ${weight} bytes with gzip`);
  assert.ok(files.length >= 4 && weight <= PAGE_BYTES_MAX, `${weight} bytes`);
  for (const file of files) assert.doesNotMatch(readFileSync(file, 'utf8'), /(?:src|href)="https?:/, `${file} loads nothing from elsewhere`);
});
