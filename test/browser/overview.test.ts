/** The first look: sign-in by link, the overview, live; a host in trouble on a phone; and a host with many VMs. */
import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { SqliteCatalog } from '../../src/catalog/sqlite-catalog.ts';
import { callHost } from '../../src/cli/client.ts';
import { pastCycle } from '../../src/model/cycle-history.ts';
import { atEnd } from '../rig/at-end.ts';
import { Pair } from '../rig/pair.ts';
import { mustRun, temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import { inspect, picture, TestBrowser } from './browser.ts';

test('a link of the command line signs in once, and the overview shows what happens by itself', async (t) => {
  const browser = await TestBrowser.start(t);
  const pair = await Pair.make(t, { inside: true });
  const { url } = await pair.primary.json<{ url: string }>('console');
  const context = await browser.context();
  const page = await context.newPage();
  await page.goto(url);
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  assert.doesNotMatch(page.url(), /token/, 'the token is gone from the address');
  await page.getByRole('row', { name: /vm1/ }).getByText('Pending initial replication').waitFor();

  // The one button that mends it, and the page follows without being reloaded.
  await page.getByRole('button', { name: 'Start initial replication' }).click();
  await page.getByRole('row', { name: /vm1/ }).getByText('Replication enabled').waitFor();
  await picture(page, 'overview');

  const [cookie] = await context.cookies();
  assert.equal(cookie!.httpOnly, true);
  assert.equal(cookie!.sameSite, 'Strict');

  const second = await (await browser.context()).newPage();
  await second.goto(url);
  await second.getByText('this sign-in token is unknown, used already').waitFor();
  await picture(second, 'sign-in');
  assert.deepEqual(browser.complaints, []);
});

test('the other host is gone: on a phone the overview says what, how long the logs last, and mends it with one button', async (t) => {
  const browser = await TestBrowser.start(t);
  // So seldom that no cycle of its own falls due meanwhile, however slow the machine is.
  const pair = await Pair.make(t, { sizes: [64 << 20, 32 << 20], frequencySec: 900, inside: true });
  await pair.replicate();
  const [uri] = await pair.uris();
  const write = (mib: number) => mustRun('qemu-io', ['-f', 'raw', '-c', `write -P ${mib} 1M ${mib}M`, '-c', 'flush', uri!]);
  for (const mib of [1, 3, 2]) {
    await write(mib);
    await pair.primary.json('sync-now', pair.vm);
  }
  const page = await browser.signedIn(pair.primary);
  await page.setViewportSize({ width: 390, height: 844 });
  const row = page.getByRole('row', { name: /vm1/ });
  await row.getByRole('img', { name: /^Churn of the last 3 cycles: at most 3\.0\d MiB, last 2\.0\d MiB$/ }).waitFor();
  await row.locator('td[data-label="Tracking logs"]').getByText(/of 48\.0 MiB/).waitFor();

  await pair.replica.kill9();
  await write(5);
  await seedCycles(pair);
  const card = page.locator('.attention', { hasText: 'vm1' });
  await card.getByText(/^Replication cannot be sent: /).waitFor();
  await row.getByText(/5\.0\d MiB/).waitFor();
  await row.getByText(/limit in \d+(\.\d)? (s|min|h)/).waitFor();
  await inspect(page, 'other-host-gone');
  assert.equal(await card.getByRole('button').count(), 1);

  await outcomes(page);
  await pair.replica.start();
  await page.getByRole('link', { name: 'Overview' }).first().click();
  await card.getByRole('button', { name: 'Try again now' }).click();
  await row.getByText('Normal').or(row.getByText('Warning')).waitFor();
  assert.deepEqual(browser.complaints, []);
});

/** An hour with cycles of every outcome, which would take an hour: put on record while the server is off. Its start tries to send what waits. */
async function seedCycles(pair: Pair): Promise<void> {
  assert.equal(await pair.primary.stop(), 0);
  const catalog = SqliteCatalog.open(join(pair.primary.data, 'catalog.db'));
  catalog.cycles.remove(pair.vmId);
  for (let at = 0; at < 120; at++) {
    const [bytes, latencyMs] = [(1 + (at * 7) % 13) * 100_000, 200 + (at * 31) % 900];
    const cycle = at % 40 === 9 ? { outcome: 'late', bytes, latencyMs: 40_000 } as const
      : at % 30 === 20 ? { outcome: 'missed' } as const : at % 30 === 21 ? { outcome: 'failed-attempt' } as const
      : { outcome: 'success', bytes, latencyMs } as const;
    catalog.cycles.add(pair.vmId, pastCycle(cycle, Date.now() - (120 - at) * 30_000));
  }
  catalog.close();
  await pair.primary.start();
}

async function outcomes(page: Page): Promise<void> {
  await page.getByRole('rowheader').getByRole('link', { name: 'vm1' }).click();
  await page.getByText(/^90 cycles since .*: 3 missed, \d attempts failed\.$/).waitFor();
  await page.getByRole('img', { name: /^Size of each cycle: at most 1\.24 MiB, last \d/ }).waitFor();
  await page.getByRole('img', { name: /^Latency of each cycle: at most 40 s, last / }).waitFor();
  const missed = page.getByRole('img', { name: 'Missed cycles: 3 of 90, 2 delivered late' });
  assert.deepEqual(await Promise.all(['missed', 'late'].map((name) => missed.locator(`rect.${name}`).count())), [3, 2]);
  // Those on record, and the attempts since.
  assert.ok(await missed.locator('rect.failed-attempt').count() > 3);
  await inspect(page, 'cycles-of-every-outcome');
  await page.getByText('As a table').click();
  assert.equal(await page.getByRole('row', { name: /missed/ }).count(), 3);
}

test('a long list: rows that nobody sees are not on the page, and are there when somebody comes to them', async (t) => {
  const vmCount = 150;
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t);
  const server = new TestServer('berlin', join(folder, 'berlin'));
  atEnd(t, () => server.kill9());
  answerInside(server);
  await server.start();
  const { signal } = new AbortController();
  for (let index = 0; index < vmCount; index++) {
    const disks = [0, 1].map((disk) => join(folder, `vm${index}-${disk}.raw`));
    for (const disk of disks) {
      await writeFile(disk, '');
      await truncate(disk, 1 << 20);
    }
    await callHost(server.data, 'vm.add', { name: `vm${index}`, disks }, { signal });
  }
  const page = await browser.signedIn(server);
  const drawn = page.getByRole('rowheader');
  const last = page.getByRole('rowheader').getByRole('link', { name: `vm${vmCount - 1}`, exact: true });
  for (const viewport of [{ width: 1280, height: 860 }, { width: 390, height: 844 }]) {
    await page.setViewportSize(viewport);
    await page.locator(`table[aria-rowcount="${vmCount + 1}"]`).waitFor();
    await page.evaluate('scrollTo(0, 0)');
    // What is near is found out once a frame.
    await drawn.getByRole('link', { name: 'vm0', exact: true }).waitFor();
    await last.waitFor({ state: 'detached' });
    assert.ok(await drawn.count() < vmCount / 2, `${await drawn.count()} of ${vmCount} rows at ${viewport.width} px`);
    // Rows that come to be measure other than was thought, and the end moves: once more.
    while (await last.count() === 0) await page.evaluate('scrollTo(0, document.documentElement.scrollHeight)');
    await last.scrollIntoViewIfNeeded();
    assert.equal(await page.getByRole('row').last().getAttribute('aria-rowindex'), String(vmCount + 1));
  }
  await page.getByLabel('Find a VM, state or host').fill('vm77');
  await page.locator('table[aria-rowcount="2"]').waitFor();
  await drawn.getByRole('link', { name: 'vm77', exact: true }).waitFor();
  assert.equal(await drawn.count(), 1);
  await page.getByLabel('Find a VM, state or host').fill('nobody');
  await page.getByText(`None of the ${vmCount} VMs matches.`).waitFor();
  assert.deepEqual(browser.complaints, []);
});
