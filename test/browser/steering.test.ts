/** Rarer tasks, and what a person decides after trouble, on two real servers: each from its first click to its end. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { atEnd } from '../rig/at-end.ts';
import { makeDisk } from '../rig/disk-formats.ts';
import { mustRun, temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import { inspect, TestBrowser } from './browser.ts';

const MIB = 1 << 20;

interface Hosts {
  folder: string;
  berlin: TestServer;
  munich: TestServer;
  oslo: TestServer;
  primary: Page;
  replica: Page;
}

test('first copies of every kind, filters, recovery points, a resync of regions, and both sides written', async (t) => {
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t);
  // Every set that was written to ends at a recovery point.
  const env = { UNDERSTUDY_POINT_INTERVAL_SEC: '0' };
  const [berlin, munich, oslo] = ['berlin', 'munich', 'oslo'].map((name) => new TestServer(name, join(folder, name), env)) as [TestServer, TestServer, TestServer];
  atEnd(t, () => Promise.all([berlin.kill9(), munich.kill9(), oslo.kill9()]));
  for (const host of [berlin, munich, oslo]) answerInside(host);
  await Promise.all([berlin.start(), munich.start(), oslo.start()]);
  const { fingerprint } = await berlin.json<{ fingerprint: string }>('fingerprint');
  await munich.json('authorize', fingerprint, '--name', 'berlin', '--storage', join(folder, 'store'));
  for (const name of ['carried', 'known', 'later']) {
    const disk = join(folder, `${name}.raw`);
    await makeDisk(disk, 'raw', 8 * MIB);
    await berlin.json('vm', 'add', name, '--disk', disk);
    await berlin.json('vm', 'attach', name);
    await write(berlin, name, 1, '1M');
  }
  const hosts: Hosts = { folder, berlin, munich, oslo, primary: await browser.signedIn(berlin), replica: await browser.signedIn(munich) };

  await t.test('the wizard with an export, and its import on the replica', () => exportAndImport(hosts));
  await t.test('the wizard with a copy that is there already', () => existingCopy(hosts));
  await t.test('the wizard with a start at a time', () => startLater(hosts));
  await t.test('the extended replica of a replica', () => extended(hosts));
  await t.test('the overview by state and by peer', () => filters(hosts));
  await t.test('cycles of the replica as charts', () => replicaCharts(hosts));
  await t.test('off-peak: in the window of its settings', () => offPeak(hosts));
  await t.test('a resync of suspect regions shows in its map what is not compared', () => regionMap(hosts));
  await t.test('failover to an older point, completed', () => olderPoint(hosts));
  await t.test('a replica with something of its own is overwritten only when a person says so', () => overwriteReplica(hosts));
  await t.test('both sides written: reverse drops the other one only when a person says so', () => splitBrain(hosts));
  assert.deepEqual(browser.complaints, []);
});

async function write(server: TestServer, vm: string, byte: number, at: string, uriOf: 'vm' | 'status' = 'vm'): Promise<void> {
  const words = uriOf === 'vm' ? ['vm', 'show', vm] : ['status', vm];
  const { disks } = await server.json<{ disks: { uri: string }[] }>(...words);
  await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P ${byte} ${at} 1M`, '-c', 'flush', disks[0]!.uri]);
}

const overview = (page: Page) => page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Overview' }).click();

async function open(page: Page, vm: string, tab?: string): Promise<void> {
  await overview(page);
  await page.getByRole('rowheader').getByRole('link', { name: vm, exact: true }).click();
  if (tab !== undefined) await page.getByRole('navigation', { name: `About ${vm}` }).getByRole('link', { name: tab }).click();
}

/** Through the wizard as it is filled in, but for the host and the first copy. From the second VM on the host is filled in too. */
async function enable({ primary, munich }: Hosts, vm: string, method: () => Promise<void>): Promise<void> {
  const { fingerprint } = await munich.json<{ fingerprint: string }>('fingerprint');
  await overview(primary);
  await primary.getByRole('link', { name: 'Enable replication…' }).click();
  const next = () => primary.getByRole('button', { name: 'Next' }).click();
  await primary.getByRole('combobox', { name: 'Virtual machine' }).selectOption(vm);
  await next();
  const [host, proof] = [primary.getByLabel('Replica server and port'), primary.getByLabel('Fingerprint of the replica server')];
  const known = vm !== 'carried';
  assert.equal(await host.inputValue(), known ? `127.0.0.1:${munich.peerPort}` : '');
  await host.fill(`127.0.0.1:${munich.peerPort}`);
  await next();
  assert.equal(await proof.inputValue(), known ? fingerprint : '');
  await proof.fill(fingerprint);
  await next();
  await primary.getByLabel(new RegExp(`${vm}\\.raw`)).waitFor();
  await next();
  await primary.getByLabel('Every 30 s').check();
  await next();
  await primary.getByRole('heading', { name: 'Configure Additional Recovery Points' }).waitFor();
  await next();
  await method();
  await next();
  await primary.getByRole('heading', { name: 'Summary' }).waitFor();
  await primary.getByRole('button', { name: 'Finish' }).click();
}

async function exportAndImport(hosts: Hosts): Promise<void> {
  const { primary, replica, berlin, folder } = hosts;
  const medium = join(folder, 'usb');
  await enable(hosts, 'carried', async () => {
    await primary.getByLabel('Export it to a folder').check();
    await primary.getByLabel('Folder on this host').fill(medium);
  });
  await berlin.until<{ exportFinished?: boolean }>(['status', 'carried'], ({ exportFinished }) => exportFinished === true);
  await open(replica, 'carried');
  await replica.getByRole('button', { name: 'Import the first copy…' }).click();
  const dialog = replica.getByRole('dialog');
  assert.equal(await dialog.getByRole('button', { name: 'Import' }).isDisabled(), true, 'not before a folder is named');
  await dialog.getByLabel('Folder on this host').fill(join(folder, 'nothing-here'));
  await dialog.getByRole('button', { name: 'Import' }).click();
  await dialog.getByRole('alert').waitFor();
  await inspect(replica, 'import');
  await dialog.getByLabel('Folder on this host').fill(medium);
  await dialog.getByRole('button', { name: 'Import' }).click();
  await primary.getByText('Replication enabled').first().waitFor();
}

async function existingCopy(hosts: Hosts): Promise<void> {
  const { primary, berlin, folder } = hosts;
  await mkdir(join(folder, 'store', 'known'), { recursive: true });
  await copyFile(join(folder, 'known.raw'), join(folder, 'store', 'known', 'known.raw'));
  await write(berlin, 'known', 2, '2M');
  await enable(hosts, 'known', () => primary.getByLabel('Use a copy that is there already').check());
  await primary.getByText('Replication enabled').first().waitFor();
}

async function startLater(hosts: Hosts): Promise<void> {
  const { primary, berlin } = hosts;
  await enable(hosts, 'later', () => primary.getByLabel('Send it over the network at a time').check());
  await primary.getByText('Pending initial replication').first().waitFor();
  const { initialReplicationStartTime: time } = await berlin.json<{ initialReplicationStartTime: string }>('status', 'later');
  const minutes = (Date.parse(time) - Date.now()) / 60_000;
  assert.ok(minutes > 50 && minutes <= 60, `it starts at ${time}`);
  await primary.getByRole('button', { name: 'Start initial replication' }).click();
  await primary.getByText('Replication enabled').first().waitFor();
}

/** Everything that the command line has for it, from setting it up to its end. */
async function extended({ munich, oslo, replica, berlin }: Hosts): Promise<void> {
  const [own, third] = [await munich.json<{ fingerprint: string }>('fingerprint'), await oslo.json<{ fingerprint: string }>('fingerprint')];
  await oslo.json('authorize', own.fingerprint, '--name', 'munich');
  await open(replica, 'later', 'Health');
  await replica.getByRole('button', { name: 'Extend replication…' }).click();
  const dialog = replica.getByRole('dialog');
  assert.equal(await dialog.getByLabel('Every 30 s').count(), 0, 'a third host is fed every 5 or 15 minutes');
  await dialog.getByLabel('Replica server and port').fill(`127.0.0.1:${oslo.peerPort}`);
  await dialog.getByLabel('Its fingerprint').fill(third.fingerprint);
  await dialog.getByLabel('Additional recovery points').check();
  await dialog.getByLabel('How many hours back').fill('3');
  await inspect(replica, 'extend');
  await dialog.getByRole('button', { name: 'Extend', exact: true }).click();

  const card = replica.getByRole('region', { name: 'Extended replica on oslo' });
  const state = (text: string) => card.locator('dd').getByText(text, { exact: true }).waitFor();
  await state('Replication enabled');
  await card.locator('dd').getByText(/Normal$/).waitFor();
  await state('The latest and 3 older ones, an hour apart');
  await card.getByText('None is required').waitFor();
  await write(berlin, 'later', 9, '3M');
  await berlin.json('sync-now', 'later');
  await card.getByRole('button', { name: 'Sync now' }).click();
  await card.getByText(/: delivered, 1\.0\d MiB in /).waitFor();
  await card.getByRole('button', { name: 'Reset statistics' }).click();
  await card.getByText('0 out of 0', { exact: true }).waitFor();
  await card.getByRole('button', { name: 'Pause' }).click();
  await state('Replication paused');
  await inspect(replica, 'extended');

  // In the overview the trouble of the leg is the VM's.
  await overview(replica);
  const trouble = replica.locator('.attention', { hasText: 'later' });
  await trouble.getByText('Extended replica on oslo: Replication paused').waitFor();
  await trouble.getByRole('button', { name: 'See why' }).click();
  await card.getByRole('button', { name: 'Resume' }).click();
  await state('Replication enabled');

  await extendedSettings(munich, replica);
  await extendedResync(replica);
  await replica.getByRole('link', { name: 'Health' }).click();
  await card.getByRole('button', { name: 'Remove replication…' }).click();
  await dialog.getByText(/It is fed no more/).waitFor();
  await dialog.getByRole('button', { name: 'Remove replication' }).click();
  await replica.getByRole('button', { name: 'Extend replication…' }).waitFor();
  assert.equal(await card.count(), 0);
}

async function extendedSettings(munich: TestServer, replica: Page): Promise<void> {
  await replica.getByRole('navigation', { name: 'About later' }).getByRole('link', { name: 'Settings' }).click();
  const own = replica.getByRole('form', { name: 'Replication', exact: true });
  assert.equal(await own.getByLabel('Every 30 s').isDisabled(), true, "the replica's own settings are changed on the primary");
  const form = replica.getByRole('form', { name: 'Extended replica on oslo' });
  await form.getByLabel('Every 15 min').check();
  await form.getByLabel('How many hours back').fill('5');
  await form.getByLabel('Manually').check();
  await form.getByRole('button', { name: 'Save' }).click();
  await form.getByText('Saved.', { exact: true }).waitFor();
  const status = await munich.json<Record<string, unknown>>('status', 'later', '--extended');
  assert.deepEqual([status['frequencySec'], status['recoveryHistory'], status['autoResynchronizeEnabled']], [900, 5, false]);
}

async function extendedResync(replica: Page): Promise<void> {
  await replica.getByRole('link', { name: 'Resynchronization' }).click();
  await replica.getByText('A resynchronization is steered on the primary').waitFor();
  await replica.getByRole('button', { name: 'Resynchronize…' }).click();
  await replica.getByRole('button', { name: 'Pause replication' }).click();
  await replica.getByRole('dialog').waitFor({ state: 'detached' });
  await replica.locator('.vm-head').getByText('Extended replica on oslo: Replication paused').waitFor();
  await replica.getByRole('button', { name: 'Resynchronize…' }).click();
  const dialog = replica.getByRole('dialog');
  await dialog.getByText('Compare the whole disks').waitFor();
  await dialog.getByText('At most 5 are deleted when it has finished').waitFor();
  await inspect(replica, 'extended-resume');
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await replica.getByRole('row', { name: /Finished.*full-compare/ }).waitFor();
  await replica.locator('.vm-head').getByText('Extended replica on oslo: Replication enabled').waitFor();
}

async function filters({ primary, berlin, folder }: Hosts): Promise<void> {
  await makeDisk(join(folder, 'alone.raw'), 'raw', MIB);
  await berlin.json('vm', 'add', 'alone', '--disk', join(folder, 'alone.raw'));
  await berlin.json('suspend', 'known');
  await overview(primary);
  const rows = primary.getByRole('rowheader').getByRole('link');
  const shows = async (...names: string[]) => {
    for (const gone of ['alone', 'carried', 'known', 'later'].filter((name) => !names.includes(name))) {
      await rows.getByText(gone, { exact: true }).waitFor({ state: 'detached' });
    }
    assert.deepEqual((await rows.allInnerTexts()).sort(), names);
  };
  await rows.getByText('alone', { exact: true }).waitFor();
  await primary.getByLabel('Peer', { exact: true }).selectOption('munich');
  await shows('carried', 'known', 'later');
  await primary.getByLabel('State', { exact: true }).selectOption('Replication paused');
  await shows('known');
  await inspect(primary, 'overview-filtered');
  await berlin.json('resume', 'known');
  await primary.getByText('None of the 4 VMs matches.').waitFor();
}

async function replicaCharts({ berlin, replica }: Hosts): Promise<void> {
  await write(berlin, 'carried', 3, '3M');
  await berlin.json('sync-now', 'carried');
  await open(replica, 'carried', 'Health');
  await replica.getByText(/\d+ cycles? since .*: none missed/).waitFor();
  await replica.getByRole('img', { name: /Size of each cycle: at most \d/ }).waitFor();
}

/** HH:MM of local time, minutes from now. */
const wall = (minutes: number) => new Date(Date.now() + minutes * 60_000).toTimeString().slice(0, 5);

async function offPeak({ berlin, primary }: Hosts): Promise<void> {
  await berlin.json('set', 'carried', '--auto-resync', `${wall(120)}-${wall(180)}`);
  await berlin.json('suspend', 'carried');
  await open(primary, 'carried', 'Resynchronization');
  await primary.getByRole('button', { name: 'Resynchronize…' }).click();
  const dialog = primary.getByRole('dialog');
  await dialog.getByLabel('In the off-peak window').check();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await primary.getByText(/It starts by itself/).first().waitFor();
  const { resynchronizeStartTime: time } = await berlin.json<{ resynchronizeStartTime: string }>('status', 'carried');
  const minutes = (Date.parse(time) - Date.now()) / 60_000;
  assert.ok(minutes > 115 && minutes <= 120, `it starts at ${time}`);
  await primary.getByRole('button', { name: 'Resume replication…' }).click();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await primary.getByRole('heading', { name: 'None is required' }).waitFor();
}

async function regionMap({ berlin, primary }: Hosts): Promise<void> {
  // Logs past their limit: the change map knows what may differ.
  await berlin.json('set', 'carried', '--log-limit', '0.1', '--disk-rate', '256K');
  await write(berlin, 'carried', 4, '4M');
  await primary.getByRole('heading', { name: 'Resynchronization required' }).waitFor();
  await berlin.json('set', 'carried', '--log-limit', '50');
  await primary.getByRole('button', { name: 'Resume replication…' }).click();
  const dialog = primary.getByRole('dialog');
  await dialog.getByText('Compare the suspect regions').waitFor();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  const map = primary.getByRole('listbox', { name: /Map of .*carried\.raw: .*Known equal, not compared \d+ %/ });
  await map.waitFor();
  assert.ok(await map.locator('i.outside').count() > await map.locator('i:not(.outside)').count(), 'most of the disk is not compared');
  await inspect(primary, 'resync-regions');
  await berlin.json('set', 'carried', '--disk-rate', '0');
  await primary.getByRole('heading', { name: 'None is required' }).waitFor();
  await primary.getByRole('row', { name: /Finished.*suspect-regions/ }).waitFor();
}

async function olderPoint({ berlin, munich, replica }: Hosts): Promise<void> {
  await berlin.json('set', 'carried', '--recovery-history', '4');
  for (const byte of [0x11, 0x22, 0x33]) {
    await write(berlin, 'carried', byte, '5M');
    await berlin.json('sync-now', 'carried');
  }
  const points = await munich.json<{ id: string; kind: string }[]>('points', 'carried');
  const older = points.filter(({ kind }) => kind === 'standard').at(-2)!;
  await open(replica, 'carried', 'Recovery points');
  await replica.getByRole('button', { name: 'Failover…', exact: true }).click();
  const dialog = replica.getByRole('dialog');
  await dialog.getByLabel('Recovery point').selectOption(older.id);
  await dialog.getByLabel(/The VM on the primary is off/).check();
  await dialog.getByRole('button', { name: 'Fail over' }).click();
  await dialog.getByText(/nbd\+unix:/).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await replica.getByRole('button', { name: 'Complete failover…' }).click();
  await dialog.getByText(/All recovery points of this VM are deleted/).waitFor();
  await inspect(replica, 'complete-failover-dialog');
  await dialog.getByRole('button', { name: 'Complete', exact: true }).click();
  await replica.getByText(/The failover is complete/).waitFor();
  const { disks } = await munich.until<{ failover: { settling: string }; disks: { uri: string }[] }>(['status', 'carried'],
    ({ failover }) => failover.settling === 'done');
  const said = await mustRun('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 0x22 5M 1M', disks[0]!.uri]);
  assert.doesNotMatch(said, /verification failed/, 'another point than the chosen one');
}

async function overwriteReplica({ berlin, folder, primary }: Hosts): Promise<void> {
  const path = join(folder, 'store', 'known', 'known.raw');
  // As from a backup: the replica disk is another file with other contents.
  await copyFile(join(folder, 'later.raw'), `${path}.new`);
  await rename(`${path}.new`, path);
  await write(berlin, 'known', 5, '5M');
  assert.equal((await berlin.cli('sync-now', 'known')).status, 3);
  await open(primary, 'known', 'Resynchronization');
  await primary.getByRole('button', { name: 'Resume replication…' }).click();
  const dialog = primary.getByRole('dialog');
  await dialog.getByText('Overwritten', { exact: true }).waitFor();
  const resume = dialog.getByRole('button', { name: 'Resume' });
  assert.equal(await resume.isDisabled(), true, 'not before a person has said so');
  await dialog.getByLabel('Overwrite the replica').check();
  await inspect(primary, 'overwrite-replica');
  await resume.click();
  await primary.getByRole('heading', { name: 'None is required' }).waitFor();
}

async function splitBrain({ berlin, munich, primary, replica }: Hosts): Promise<void> {
  await berlin.json('sync-now', 'known');
  // Neither host can know of the other what a guest does there.
  await berlin.kill9();
  await munich.json('failover', 'known');
  await write(munich, 'known', 6, '6M', 'status');
  await munich.kill9();
  await berlin.start();
  await write(berlin, 'known', 7, '7M');
  await munich.start();
  await open(replica, 'known', 'Recovery points');
  await replica.getByRole('button', { name: 'Reverse replication…' }).click();
  const dialog = replica.getByRole('dialog');
  await dialog.getByLabel(/The old primary’s VM is off/).check();
  const reverse = dialog.getByRole('button', { name: 'Reverse', exact: true });
  await reverse.click();
  await dialog.getByRole('alert').getByText('SPLIT_BRAIN').waitFor();
  assert.equal(await reverse.isDisabled(), true, 'not before a person has chosen');
  await inspect(replica, 'split-brain');
  await dialog.getByLabel(/drop what the old primary has written/).check();
  await reverse.click();
  await replica.locator('.vm-head').getByText('Primary', { exact: true }).waitFor();
  await munich.until<{ state: string }>(['status', 'known'], ({ state }) => state === 'Replicating');
  await open(primary, 'known');
  await primary.locator('.vm-head').getByText('Replica', { exact: true }).waitFor();
}
