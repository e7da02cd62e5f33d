/**
 * What do 500 protected VMs with two disks each cost the console? Two real servers, real Chromium. Every VM replicates with cycles of 30 s and
 * changes by itself, and pages are asked for what a person does: open the list, filter it, scroll through it, watch it.
 *
 * - Time until all VMs are listed and the filter has answered, and the longest time that the page did not answer meanwhile.
 * - While they change: longest task of the page, what travels, how soon a change is on the page (the server tells once a second).
 * - Scrolling from top to bottom, half a screen a frame: longest task, and the gaps between frames (which have in them what else the machine does).
 * - Memory of the page's scripts, and the processor time of the server with and without a page that watches.
 *
 * Every VM must be found in its state by scrolling through the list, and every change that was made must arrive.
 *
 *   node bench/console.ts [--vms N] [--live N] [--seconds N]       needs chromium
 */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Page } from 'playwright-core';
import { callHost } from '../src/cli/client.ts';
import { TestBrowser } from '../test/browser/browser.ts';
import { atEnd } from '../test/rig/at-end.ts';
import { temporaryFolder } from '../test/rig/program.ts';
import { TestServer } from '../test/rig/server.ts';
import { record, spread } from './record.ts';

const { values } = parseArgs({ options: {
  vms: { type: 'string', default: '500' }, live: { type: 'string' }, seconds: { type: 'string', default: '30' } } });
const [VMS, SECONDS] = [Number(values.vms), Number(values.seconds)];
/** So many of them replicate; the rest is known and not started. */
const LIVE = Math.min(VMS, Number(values.live ?? VMS));
const DISK_BYTES = 1 << 20;
/** Changes that are followed until they are on the page. */
const FOLLOWED = Math.min(20, LIVE);

const cleanups: (() => unknown)[] = [];
const t = { after: (work: () => unknown) => void cleanups.unshift(work) };
const { signal } = new AbortController();
const nameOf = (index: number) => `vm${String(index).padStart(3, '0')}`;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Milliseconds of processor time so far. */
function processorMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function prepare(folder: string, primary: TestServer, replica: TestServer): Promise<void> {
  const { fingerprint } = await callHost(primary.data, 'fingerprint', {}, { signal });
  await callHost(replica.data, 'authorize', { fingerprint, storage: join(folder, 'store') }, { signal });
  const other = await callHost(replica.data, 'fingerprint', {}, { signal });
  mkdirSync(join(folder, 'disks'));
  for (let index = 0; index < VMS; index++) {
    const name = nameOf(index);
    const disks = [0, 1].map((disk) => join(folder, 'disks', `${name}-${disk}.raw`));
    for (const disk of disks) {
      writeFileSync(disk, '');
      truncateSync(disk, DISK_BYTES);
    }
    await callHost(primary.data, 'vm.add', { name, disks }, { signal });
    const to = { replica: `127.0.0.1:${replica.peerPort}`, fingerprint: other.fingerprint };
    await callHost(primary.data, 'enable', { name, ...to, settings: { frequencySec: 30 } }, { signal });
    if (index >= LIVE) continue;
    await callHost(primary.data, 'vm.attach', { name }, { signal });
    await callHost(primary.data, 'start', { name }, { signal });
  }
  while (await replicating(primary) < LIVE) await pause(500);
}

async function replicating(primary: TestServer): Promise<number> {
  const all = await callHost(primary.data, 'status', {}, { signal }) as { state: string }[];
  return all.filter(({ state }) => state === 'Replicating').length;
}

/** Tasks that kept the page from answering for more than 50 ms, from its first line on. */
const WATCH_TASKS = `globalThis.tasks = [];
  new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: 'longtask', buffered: true });`;

async function tasksSince(page: Page): Promise<{ longest: number; count: number }> {
  const tasks = await page.evaluate<number[]>('globalThis.tasks.splice(0)');
  return { longest: Math.max(0, ...tasks), count: tasks.length };
}

const said = ({ longest, count }: { longest: number; count: number }) =>
  (count === 0 ? 'none over 50 ms' : `${Math.round(longest)} ms, ${count} over 50 ms`);

const filter = (page: Page, text: string) => page.getByLabel('Find a VM, state or host').fill(text);
/** The list with so many rows; those that nobody sees are counted, and not drawn. */
const listed = (page: Page, rows: number) => page.locator(`table.vms[aria-rowcount="${rows + 1}"] tbody tr`).first().waitFor();

/** Until every VM is listed, and the filter has answered. */
async function open(primary: TestServer, page: Page): Promise<number> {
  const began = performance.now();
  const { url } = await callHost(primary.data, 'console.sign-in', {}, { signal });
  await page.goto(url);
  await listed(page, VMS);
  await filter(page, nameOf(VMS - 1));
  await listed(page, 1);
  const ms = performance.now() - began;
  await filter(page, '');
  await listed(page, VMS);
  return ms;
}

/** From the answer of the server that a VM is paused to the row that says so, and back again, for VMs all over the list. */
async function followChanges(primary: TestServer, page: Page): Promise<number[]> {
  const found: number[] = [];
  for (let at = 0; at < FOLLOWED; at++) {
    const name = nameOf(Math.floor((at * LIVE) / FOLLOWED));
    await filter(page, name);
    await listed(page, 1);
    const row = page.locator('table.vms tbody tr', { has: page.getByRole('link', { name, exact: true }) });
    for (const [operation, text] of [['suspend', 'Replication paused'], ['resume', 'Replication enabled']] as const) {
      await callHost(primary.data, operation, { name }, { signal });
      const began = performance.now();
      await row.locator('td[data-label=State]', { hasText: text }).waitFor({ state: 'attached' });
      found.push(performance.now() - began);
    }
  }
  await filter(page, '');
  await listed(page, VMS);
  return found;
}

interface Scrolled {
  gaps: number[];
  /** Of each VM that was on the page meanwhile. */
  states: Record<string, string>;
}

/** The gaps between two frames, in ms, while the list passes from its top to its end, half a screen a frame; and what stood in it. */
const SCROLL = `new Promise((resolve) => {
  let last = performance.now();
  const states = {}, gaps = [];
  const read = () => { for (const row of document.querySelectorAll('table.vms tr:has(th[scope=row])')) {
    states[row.querySelector('a').textContent] = row.querySelector('[data-label=State]').textContent;
  } };
  const step = () => {
    gaps.push(performance.now() - last);
    read();
    scrollBy(0, innerHeight / 2);
    const atEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
    last = performance.now();
    if (atEnd && gaps.length > 1 && document.querySelector('table.vms tbody:last-child th') !== null) { read(); resolve({ gaps, states }); }
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(() => { last = performance.now(); requestAnimationFrame(step); });
})`;

async function scrollThrough(page: Page): Promise<Scrolled> {
  const scrolled = await page.evaluate<Scrolled>(SCROLL);
  const states = Object.values(scrolled.states);
  const live = states.filter((state) => state === 'Replication enabled').length;
  if (states.length !== VMS || live !== LIVE) throw new Error(`${states.length} VMs are listed, ${live} of them as replicating`);
  return scrolled;
}

async function measure(primary: TestServer, page: Page): Promise<(string | number)[][]> {
  await page.addInitScript(WATCH_TASKS);
  const opened = await open(primary, page);
  const opening = await tasksSince(page);
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  let received = 0;
  session.on('Network.dataReceived', ({ dataLength }) => (received += dataLength));
  const before = processorMs(primary.pid);
  await pause(SECONDS * 1000);
  const watched = processorMs(primary.pid) - before;
  const traffic = received / 1024 / SECONDS;
  const watching = await tasksSince(page);
  const changes = await followChanges(primary, page);
  const changing = await tasksSince(page);
  const { gaps } = await scrollThrough(page);
  const scrolling = await tasksSince(page);
  await session.send('HeapProfiler.enable');
  await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  const { metrics } = await session.send('Performance.enable').then(() => session.send('Performance.getMetrics'));
  const nodes = metrics.find(({ name }) => name === 'Nodes')?.value ?? 0;
  await page.close();
  const alone = processorMs(primary.pid);
  await pause(SECONDS * 1000);
  const closed = processorMs(primary.pid) - alone;
  return [
    [`until ${VMS} VMs are listed and the filter has answered`, `${Math.round(opened)} ms`],
    ['tasks of the page meanwhile', said(opening)],
    [`tasks while ${LIVE} VMs replicate, ${SECONDS} s`, said(watching)],
    ['tasks while VMs are paused and resumed', said(changing)],
    [`a change until it is on the page, median of ${changes.length}`, `${spread(changes, 0)} ms`],
    ['tasks while the list is scrolled through', said(scrolling)],
    [`between two frames meanwhile, median of ${gaps.length}`, `${spread(gaps, 0)} ms`],
    ['received while watching', `${traffic.toFixed(1)} KiB/s`],
    ['script objects of the page', `${(usedSize / 2 ** 20).toFixed(1)} MiB, ${nodes} nodes`],
    ['processor time of the server, page open / closed', `${Math.round(watched / SECONDS)} / ${Math.round(closed / SECONDS)} ms/s`],
  ];
}

try {
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t, 'understudy-bench-');
  const [primary, replica] = ['primary', 'replica'].map((name) => new TestServer(name, join(folder, name))) as [TestServer, TestServer];
  atEnd(t, () => Promise.all([primary.kill9(), replica.kill9()]));
  await Promise.all([primary.start(), replica.start()]);
  const began = performance.now();
  await prepare(folder, primary, replica);
  const prepared = Math.round((performance.now() - began) / 1000);
  const rows = await measure(primary, await (await browser.context()).newPage());
  if (browser.complaints.length > 0) throw new Error(`the page complained: ${browser.complaints.join('; ')}`);
  record({
    question: 'What a large host costs the console', command: `node bench/console.ts --vms ${VMS} --live ${LIVE} --seconds ${SECONDS}`,
    notes: [`${VMS} VMs × 2 disks, ${LIVE} of them replicating with cycles of 30 s (prepared in ${prepared} s)`, 'the server tells pages once a second'],
    columns: ['', 'measured'], rows,
  });
} finally {
  for (const work of cleanups) await work();
}
