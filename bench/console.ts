/**
 * What do 500 VMs with two disks each cost the console? Two real servers, real Chromium: time until the list can be used, the longest
 * time that the page does not answer while VMs change, its memory, what travels, and the processor time of the server with and
 * without a page that watches. Checks that all VMs are listed and that a change arrives.
 *
 *   node bench/console.ts [--vms N] [--seconds N]       needs chromium
 */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Page } from 'playwright-core';
import { callHost } from '../src/cli/client.ts';
import { TestBrowser } from '../test/browser/browser.ts';
import { temporaryFolder } from '../test/rig/program.ts';
import { TestServer } from '../test/rig/server.ts';

const { values } = parseArgs({ options: { vms: { type: 'string', default: '500' }, seconds: { type: 'string', default: '20' } } });
const [vmCount, seconds] = [Number(values.vms), Number(values.seconds)];
/** So many of them replicate and change; the rest is known and still. */
const LIVE = Math.min(20, vmCount);
const DISK_BYTES = 1 << 20;

const cleanups: (() => unknown)[] = [];
const t = { after: (work: unknown) => void cleanups.unshift(work as () => unknown) };
const { signal } = new AbortController();
const nameOf = (index: number) => `vm${String(index).padStart(3, '0')}`;

/** Milliseconds of processor time so far. */
function processorMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function prepare(folder: string, primary: TestServer, replica: TestServer): Promise<void> {
  const { fingerprint } = await primary.json<{ fingerprint: string }>('fingerprint');
  await replica.json('authorize', fingerprint, '--storage', join(folder, 'store'));
  const other = await replica.json<{ fingerprint: string }>('fingerprint');
  mkdirSync(join(folder, 'disks'));
  for (let index = 0; index < vmCount; index++) {
    const name = nameOf(index);
    const disks = [0, 1].map((disk) => join(folder, 'disks', `${name}-${disk}.raw`));
    for (const disk of disks) {
      writeFileSync(disk, '');
      truncateSync(disk, DISK_BYTES);
    }
    await callHost(primary.data, 'vm.add', { name, disks }, { signal });
    const to = { replica: `127.0.0.1:${replica.peerPort}`, fingerprint: other.fingerprint };
    await callHost(primary.data, 'enable', { name, ...to, settings: { frequencySec: 900 } }, { signal });
    if (index >= LIVE) continue;
    await callHost(primary.data, 'vm.attach', { name }, { signal });
    await callHost(primary.data, 'start', { name }, { signal });
  }
}

/** Long tasks: whatever kept the page from answering for more than 50 ms. */
const WATCH_TASKS = `globalThis.longest = 0; globalThis.tasks = 0;
  new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) { longest = Math.max(longest, duration); tasks++; } })
    .observe({ type: 'longtask' });`;

async function change(primary: TestServer, until: number): Promise<number> {
  let changes = 0;
  for (let index = 0; performance.now() < until; index = (index + 1) % LIVE) {
    await callHost(primary.data, 'reset-statistics', { name: nameOf(index) }, { signal });
    await callHost(primary.data, 'sync-now', { name: nameOf(index) }, { signal });
    changes++;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return changes;
}

async function measure(primary: TestServer, page: Page): Promise<void> {
  const began = performance.now();
  const { url } = await callHost(primary.data, 'console.sign-in', {}, { signal });
  await page.goto(url);
  const rows = page.locator('table.vms tbody tr');
  await rows.nth(vmCount - 1).waitFor({ state: 'attached' });
  await page.getByLabel('Find a VM, state or host').fill(nameOf(vmCount - 1));
  await rows.nth(1).waitFor({ state: 'detached' });
  console.log(`time until ${vmCount} VMs are listed and the filter has answered  ${Math.round(performance.now() - began)} ms`);
  await page.getByLabel('Find a VM, state or host').fill('');
  await rows.nth(vmCount - 1).waitFor({ state: 'attached' });

  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  let received = 0;
  session.on('Network.dataReceived', ({ dataLength }) => (received += dataLength));
  await page.evaluate(WATCH_TASKS);
  const before = processorMs(primary.pid);
  const changes = await change(primary, performance.now() + seconds * 1000);
  const watched = processorMs(primary.pid) - before;
  const { longest, tasks } = await page.evaluate<{ longest: number; tasks: number }>('({ longest: globalThis.longest, tasks: globalThis.tasks })');
  await session.send('HeapProfiler.enable');
  await session.send('HeapProfiler.collectGarbage');
  const heap = await page.evaluate<number>('performance.memory.usedJSHeapSize');
  console.log(`${changes} changes in ${seconds} s: longest task ${Math.round(longest)} ms, ${tasks} tasks over 50 ms`);
  console.log(`memory of the page                                     ${(heap / 2 ** 20).toFixed(1)} MiB of script objects`);
  console.log(`received                                               ${(received / 1024 / seconds).toFixed(1)} KiB/s`);
  await page.close();
  const alone = processorMs(primary.pid);
  const changesAlone = await change(primary, performance.now() + seconds * 1000);
  const closed = processorMs(primary.pid) - alone;
  console.log(`server's processor time, page open / closed            ${Math.round(watched / seconds)} / ${Math.round(closed / seconds)} ms/s` +
    ` (${changes} / ${changesAlone} changes)`);
}

try {
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t, 'understudy-bench-');
  const [primary, replica] = ['primary', 'replica'].map((name) => new TestServer(name, join(folder, name))) as [TestServer, TestServer];
  t.after(() => Promise.all([primary.kill9(), replica.kill9()]));
  await Promise.all([primary.start(), replica.start()]);
  const began = performance.now();
  await prepare(folder, primary, replica);
  console.log(`(${vmCount} VMs prepared in ${Math.round((performance.now() - began) / 1000)} s)`);
  await measure(primary, await (await browser.context()).newPage());
} finally {
  for (const work of cleanups) await work();
}
