/** What people do with the console, each task from its first click to its end, on two real servers. */
import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { atEnd } from '../rig/at-end.ts';
import { mustRun, temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import { inspect, TestBrowser } from './browser.ts';

const MIB = 1 << 20;

test('from two empty hosts to a resynchronized replica, in the browser', async (t) => {
  const browser = await TestBrowser.start(t);
  const folder = await temporaryFolder(t);
  const [berlin, munich] = [new TestServer('berlin', join(folder, 'berlin')), new TestServer('munich', join(folder, 'munich'))];
  atEnd(t, () => Promise.all([berlin.kill9(), munich.kill9()]));
  for (const host of [berlin, munich]) answerInside(host);
  await Promise.all([berlin.start(), munich.start()]);
  const disks = [join(folder, 'system.raw'), join(folder, 'data.raw')];
  for (const [index, disk] of disks.entries()) {
    await writeFile(disk, '');
    await truncate(disk, index === 0 ? 8 * MIB : 64 * MIB);
  }
  const primary = await browser.signedIn(berlin);
  const replica = await browser.signedIn(munich);

  await t.test('add a VM', async () => {
    await primary.getByRole('link', { name: 'Add a VM' }).click();
    await primary.getByLabel('Name').fill('web1');
    await primary.getByLabel('Disks, one in each line').fill(disks.join('\n'));
    await inspect(primary, 'add-vm');
    await primary.getByRole('button', { name: 'Add' }).click();
    await primary.getByRole('heading', { name: 'Not replicated' }).waitFor();
  });

  await t.test('pair the hosts by fingerprint', async () => {
    await primary.getByRole('link', { name: 'Peers' }).click();
    const fingerprint = await primary.locator('.own .fingerprint').innerText();
    const words = await primary.locator('.own .words').innerText();
    assert.equal(words.split(' ').length, 16);
    // One of the three corner marks of a QR code, behind its quiet border: seven dark squares in a row.
    const squares = await primary.getByRole('img', { name: 'Fingerprint of this host as a QR code' }).locator('path').getAttribute('d');
    assert.ok(squares!.startsWith([2, 3, 4, 5, 6, 7, 8].map((x) => `M${x} 2h1v1h-1z`).join('')) && !squares!.includes('M9 2h'), squares!.slice(0, 200));
    await replica.getByRole('link', { name: 'Peers' }).click();
    await replica.getByLabel('Its fingerprint').fill(fingerprint);
    await replica.getByText(words).waitFor();
    await replica.getByLabel('What you call it').fill('berlin');
    await replica.getByLabel('Folder for its replica disks').fill(join(folder, 'store'));
    await replica.getByRole('button', { name: 'Authorise' }).click();
    await replica.getByRole('row', { name: /berlin/ }).waitFor();
    await inspect(replica, 'peers');
  });

  await t.test('enable replication, page by page', () => enable(primary, replica, munich.peerPort));

  await t.test('health: fields, reset, CSV', async () => {
    await write(berlin, 1, '8M');
    await berlin.json('sync-now', 'web1');
    await write(berlin, 0, '2M');
    await berlin.json('sync-now', 'web1');
    for (const field of HEALTH_FIELDS) await primary.getByText(field, { exact: true }).waitFor();
    await primary.getByRole('img', { name: /^Missed cycles: 0 of \d/ }).waitFor();
    await primary.getByText(/\d+ cycles since .*: none missed/).waitFor();
    await inspect(primary, 'health');
    const [download] = await Promise.all([primary.waitForEvent('download'), primary.getByRole('button', { name: 'Save as CSV' }).click()]);
    assert.equal(download.suggestedFilename(), 'web1 replication health.csv');
    const csv = await readFile(await download.path(), 'utf8');
    assert.match(csv, /^Field,Value\r\nVM name,web1\r\nReplication state,Replicating\r\n/);
    await primary.getByRole('button', { name: 'Reset statistics' }).click();
    await primary.getByText('0 out of 0', { exact: true }).waitFor();
  });

  await t.test('settings: change some, keep the rest', async () => {
    await primary.getByRole('link', { name: 'Settings' }).click();
    const form = primary.getByRole('form', { name: 'Replication' });
    const save = async () => {
      await form.getByRole('button', { name: 'Save' }).click();
      await form.getByText('Saved.', { exact: true }).waitFor();
      return berlin.json<Record<string, unknown>>('status', 'web1');
    };
    // Each group of the original once: connection, frequency, recovery points, resynchronization.
    await form.getByLabel('Compress what is sent').uncheck();
    await form.getByLabel('Every 15 min').check();
    await form.getByLabel('Additional recovery points').check();
    await form.getByLabel('How many hours back').fill('4');
    await form.getByLabel('Keep them over a resynchronization').check();
    await form.getByLabel(/only during the following hours/).check();
    await form.getByLabel('From').fill('20:15');
    await form.getByLabel('To', { exact: true }).fill('05:30');
    await inspect(primary, 'settings');
    const first = await save();
    assert.deepEqual([first['frequencySec'], first['recoveryHistory'], first['autoResynchronizeEnabled'],
      first['autoResynchronizeIntervalStart'], first['autoResynchronizeIntervalEnd']], [900, 4, true, '20:15:00', '05:30:00']);
    await primary.reload();
    assert.equal(await form.getByLabel('Compress what is sent').isChecked(), false);
    assert.equal(await form.getByLabel('Keep them over a resynchronization').isChecked(), true);
    await form.getByLabel(/^Automatically start resynchronization$/).check();
    await form.getByRole('button', { name: 'Discard' }).click();
    assert.equal(await form.getByLabel(/only during the following hours/).isChecked(), true);
    await form.getByLabel('Every 5 min').check();
    await form.getByLabel('Only the latest point for recovery').check();
    await form.getByLabel('Manually').check();
    await form.getByLabel('Reading by a resynchronization, MiB/s').fill('1');
    const second = await save();
    assert.deepEqual([second['frequencySec'], second['recoveryHistory'], second['autoResynchronizeEnabled']], [300, 0, false]);
  });

  await t.test('settings of the guest: adapter, agent, addresses', () => guestSettings(primary, berlin));

  await t.test('resynchronize: plan, map, pause, continue, cancel, at a time', () => resynchronize(primary, berlin));

  await t.test('events: filter', async () => {
    await primary.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Events' }).click();
    await primary.getByLabel('Find in events').fill('29242');
    await primary.getByText(/Resynchronization of VM 'web1' compares/).first().waitFor();
    await primary.getByLabel('Level').selectOption('Error');
    await primary.getByText('No event matches.').waitFor();
    await primary.getByLabel('Find in events').fill('');
    await primary.getByLabel('Level').selectOption('Warning');
    await primary.getByText("Resynchronization was paused for VM 'web1': asked by the user.").first().waitFor();
    await primary.getByLabel('Level').selectOption('');
    await primary.getByLabel('VM', { exact: true }).selectOption('web1');
    await inspect(primary, 'events');
  });

  await t.test('fail over on the replica, and take it back', () => failOver(replica));
  await t.test('test failover; planned failover and reverse', () => testAndMove(primary, replica));
  assert.deepEqual(browser.complaints, []);
});

/** All of Hyper-V's window (docs/operating/console.md); a replica has the test failover's two besides. */
const HEALTH_FIELDS = [
  'Replication state', 'Replication mode', 'Current primary server', 'Current replica server', 'Replication health', 'From time', 'To time',
  'Average size', 'Maximum size', 'Average latency', 'Errors encountered', 'Successful replication cycles', 'Last synchronized at',
  'Data yet to be replicated',
];

let pattern = 0x40;

async function write(server: TestServer, disk: number, amount: string): Promise<void> {
  const { disks } = await server.json<{ disks: { uri: string }[] }>('vm', 'show', 'web1');
  await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P ${++pattern} 4M ${amount}`, '-c', 'flush', disks[disk]!.uri]);
}

async function enable(primary: Page, replica: Page, port: number): Promise<void> {
  await primary.getByRole('link', { name: 'Overview' }).click();
  await primary.getByRole('link', { name: 'Enable replication…' }).click();
  const heading = (name: string) => primary.getByRole('heading', { name, exact: true }).waitFor();
  const next = () => primary.getByRole('button', { name: 'Next' }).click();
  await heading('Before You Begin');
  await primary.getByText('Step 1 of 8').waitFor();
  await inspect(primary, 'enable-1');
  await next();
  await heading('Specify Replica Server');
  await primary.getByLabel('Replica server and port').fill(`127.0.0.1:${port}`);
  await inspect(primary, 'enable-2');
  await next();
  await heading('Specify Connection Parameters');
  // A fingerprint that is not the host's is found out here, not at the end.
  await primary.getByLabel('Fingerprint of the replica server').fill(Array(32).fill('AB').join(':'));
  await next();
  await primary.getByRole('alert').getByText('PEER_FINGERPRINT_MISMATCH').waitFor();
  await primary.getByLabel('Fingerprint of the replica server').fill(await replica.locator('.own .fingerprint').innerText());
  await primary.getByText(`Its page must say: ${await replica.locator('.own .words').innerText()}`).waitFor();
  await inspect(primary, 'enable-3');
  await next();
  await heading('Choose Replication VHDs');
  await primary.getByLabel(/system\.raw/).waitFor();
  await inspect(primary, 'enable-4');
  await next();
  await heading('Configure Replication Frequency');
  assert.equal(await primary.getByLabel('Every 5 min').isChecked(), true, 'filled in already');
  await primary.getByLabel('Every 30 s').check();
  await inspect(primary, 'enable-5');
  await next();
  await heading('Configure Additional Recovery Points');
  await inspect(primary, 'enable-6');
  await next();
  await heading('Choose Initial Replication Method');
  await inspect(primary, 'enable-7');
  await next();
  await heading('Summary');
  await inspect(primary, 'enable-8');
  await primary.getByRole('button', { name: 'Finish' }).click();
  await primary.getByText('Replication enabled').first().waitFor();
}

async function guestSettings(page: Page, server: TestServer): Promise<void> {
  const form = page.getByRole('form', { name: 'The guest on this host' });
  await form.getByLabel(/^libvirt/).check();
  await form.getByLabel('Connection').fill('qemu:///session');
  await form.getByLabel('A program of yours').check();
  await form.getByLabel('Path of the program').fill('/usr/local/sbin/web1-guest');
  await form.getByLabel('On a Unix socket of this host').check();
  await form.getByLabel('Path of the agent’s socket').fill('/run/web1-agent.sock');
  await form.getByRole('button', { name: 'Add an address' }).click();
  await form.getByLabel('MAC, or interface in the guest').fill('52:54:00:12:34:56');
  await form.getByLabel('Address and prefix').fill('10.0.0.5/99');
  await form.getByLabel('Name servers, with commas').fill('10.0.0.1, 10.0.0.2');
  await form.getByRole('button', { name: 'Apply on this host' }).click();
  await form.getByRole('alert').getByText(/prefix/).waitFor();
  await form.getByLabel('Address and prefix').fill('10.0.0.5/24');
  await inspect(page, 'settings-guest');
  await form.getByRole('button', { name: 'Apply on this host' }).click();
  await form.getByText('Applied.', { exact: true }).waitFor();
  const { hypervisor } = await server.json<{ hypervisor: Record<string, unknown> }>('vm', 'show', 'web1');
  const { adapter, command, libvirtUri, guestAgent, addresses } = hypervisor;
  assert.deepEqual({ adapter, command, libvirtUri, guestAgent, addresses }, {
    adapter: 'command', command: '/usr/local/sbin/web1-guest', libvirtUri: 'qemu:///session', guestAgent: '/run/web1-agent.sock',
    addresses: [{ card: '52:54:00:12:34:56', address: '10.0.0.5', prefix: 24, gateway: null, dns: ['10.0.0.1', '10.0.0.2'] }],
  });
  // The tasks that follow are carried out by hand.
  await form.getByLabel('Nobody').check();
  await form.getByRole('button', { name: 'Remove card 1' }).click();
  await form.getByLabel('There is none').check();
  await form.getByRole('button', { name: 'Apply on this host' }).click();
  await form.getByText('Applied.', { exact: true }).waitFor();
}

/** Tab reaches the map, arrow keys and clicks a cell of it; what it says stands below. */
async function lookAtCells(page: Page): Promise<void> {
  const map = page.getByRole('listbox', { name: /Map of .*data\.raw/ });
  await map.focus();
  await page.getByText(/^Part 1 of 256, 0 B to 256 KiB: /).waitFor();
  await page.keyboard.press('ArrowRight');
  await page.getByText(/^Part 2 of 256, 256 KiB to 512 KiB: /).waitFor();
  const chosen = () => page.locator('i[aria-selected="true"]');
  for (const width of [390, 1280]) {
    await page.setViewportSize({ width, height: 860 });
    const above = await chosen().boundingBox();
    await page.keyboard.press('ArrowDown');
    const below = await chosen().boundingBox();
    assert.equal(below!.x, above!.x, 'the cell right below, whatever fits into a row');
    assert.ok(below!.y > above!.y && below!.y < above!.y + 2 * above!.height, 'one row further');
    await page.keyboard.press('ArrowUp');
    await page.getByText(/^Part 2 of 256, /).waitFor();
  }
  const says = await page.locator(`[id='${await map.getAttribute('aria-activedescendant')}']`).getAttribute('title');
  assert.match(says ?? '', /^256 KiB to 512 KiB: \w/);
  await page.keyboard.press('End');
  await page.getByText(/^Part 256 of 256, 63\.8 MiB to 64\.0 MiB: /).waitFor();
  await map.locator('i').nth(2).click();
  await page.getByText(/^Part 3 of 256, /).waitFor();
}

async function resynchronize(primary: Page, server: TestServer): Promise<void> {
  await primary.getByRole('link', { name: 'Resynchronization' }).click();
  await primary.getByRole('button', { name: 'Resynchronize…' }).click();
  await primary.getByRole('button', { name: 'Pause replication' }).click();
  await primary.getByText('Replication paused').first().waitFor();
  // What a compare finds differing: written while nothing is sent.
  await write(server, 0, '1M');
  await primary.getByRole('button', { name: 'Resynchronize…' }).click();
  const dialog = primary.getByRole('dialog');
  await dialog.getByText('Compare the whole disks').waitFor();
  await dialog.getByText('72.0 MiB').waitFor();
  await inspect(primary, 'resume-dialog');
  await dialog.getByLabel('At a time').check();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await primary.getByText(/It starts by itself/).first().waitFor();
  await primary.getByRole('button', { name: 'Cancel…' }).click();
  await primary.getByRole('button', { name: 'Drop the start' }).click();
  await primary.getByText('It waits until somebody resumes replication.').waitFor();

  await primary.getByRole('button', { name: 'Resume replication…' }).click();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await primary.getByRole('heading', { name: /Resynchronizing – \d+ %/ }).waitFor();
  await primary.getByRole('listbox', { name: /Map of .*system\.raw: .*Mended/ }).waitFor();
  const number = (name: string) => primary.locator('.numbers div', { hasText: name }).locator('dd');
  await number('Rate').getByText(/\d (K|M)iB\/s/).waitFor();
  await number('Time left').getByText(/\d (s|min|h)$/).waitFor();
  await primary.getByRole('button', { name: 'Pause' }).click();
  await primary.getByRole('heading', { name: /Paused at/ }).waitFor();
  await lookAtCells(primary);
  await inspect(primary, 'resync-paused');
  // So slow from here on that it still runs, however long the pictures take.
  await server.json('set', 'web1', '--disk-rate', '64K');
  await primary.getByRole('button', { name: 'Continue' }).click();
  await primary.getByRole('heading', { name: /Resynchronizing/ }).waitFor();
  await inspect(primary, 'resync-running');
  await primary.getByRole('button', { name: 'Cancel…' }).click();
  await inspect(primary, 'cancel-resync-dialog');
  await primary.getByRole('button', { name: 'Cancel it' }).click();
  await primary.getByRole('heading', { name: 'Resynchronization required' }).waitFor();

  await primary.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Queue' }).click();
  await primary.getByRole('row', { name: /web1/ }).getByText('Not begun').waitFor();
  await inspect(primary, 'queue');
  await primary.getByRole('link', { name: 'Overview' }).click();
  await inspect(primary, 'attention');
  await server.json('set', 'web1', '--disk-rate', '0');
  await primary.getByRole('button', { name: 'Resume replication…' }).click();
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await primary.getByRole('row', { name: /web1/ }).getByText('Replication enabled').waitFor();
  await primary.getByRole('rowheader').getByRole('link', { name: 'web1' }).click();
  await primary.getByRole('link', { name: 'Resynchronization' }).click();
  await primary.getByRole('row', { name: /Finished.*full-compare/ }).waitFor();
  await primary.getByRole('row', { name: /Cancelled/ }).waitFor();
  await inspect(primary, 'resync-past');
}

async function failOver(replica: Page): Promise<void> {
  await replica.getByRole('link', { name: 'Overview' }).click();
  await replica.getByRole('rowheader').getByRole('link', { name: 'web1' }).click();
  await replica.getByRole('link', { name: 'Recovery points' }).click();
  await replica.locator('.points').getByText('Latest').waitFor();
  await inspect(replica, 'points');
  await replica.getByRole('link', { name: 'Health' }).click();
  for (const field of ['Test failover status', 'Last test failover initiated at', 'Data yet to be applied']) {
    await replica.getByText(field, { exact: true }).waitFor();
  }
  await replica.getByRole('link', { name: 'Recovery points' }).click();
  await replica.getByRole('button', { name: 'Failover…', exact: true }).click();
  const dialog = replica.getByRole('dialog');
  await dialog.getByText(/Everything that the guest wrote after .* is lost/).waitFor();
  assert.equal(await dialog.getByRole('button', { name: 'Fail over' }).isDisabled(), true, 'not before the person is sure');
  await dialog.getByLabel(/The VM on the primary is off/).check();
  await inspect(replica, 'failover-dialog');
  await dialog.getByRole('button', { name: 'Fail over' }).click();
  await dialog.getByText(/nbd\+unix:/).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await replica.getByRole('button', { name: 'Cancel failover…' }).click();
  await inspect(replica, 'cancel-failover-dialog');
  await dialog.getByRole('button', { name: 'Cancel the failover' }).click();
  await replica.getByText('Replication enabled').first().waitFor();
}

async function testAndMove(primary: Page, replica: Page): Promise<void> {
  const dialog = replica.getByRole('dialog');
  await replica.getByRole('button', { name: 'Test failover…' }).click();
  await dialog.getByText('Nothing is lost.').waitFor();
  await inspect(replica, 'test-failover-dialog');
  await dialog.getByRole('button', { name: 'Start the test' }).click();
  await dialog.getByText(/nbd\+unix:/).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await replica.getByText(/A test failover is running/).waitFor();
  await inspect(replica, 'test-failover');
  await replica.getByRole('button', { name: 'Stop test failover' }).click();
  await dialog.getByRole('button', { name: 'Stop the test' }).click();
  await replica.getByRole('button', { name: 'Test failover…' }).waitFor();

  await primary.getByRole('link', { name: 'Overview' }).click();
  await primary.getByRole('rowheader').getByRole('link', { name: 'web1' }).click();
  await primary.getByRole('link', { name: 'Recovery points' }).click();
  await primary.getByRole('button', { name: 'Planned failover…' }).click();
  await primary.getByRole('dialog').getByLabel('The VM is shut down.').check();
  await inspect(primary, 'planned-failover');
  await primary.getByRole('dialog').getByRole('button', { name: 'Prepare' }).click();
  await primary.getByText(/A planned failover is prepared/).waitFor();

  await replica.getByRole('button', { name: 'Planned failover…' }).click();
  await dialog.getByRole('button', { name: 'Fail over' }).click();
  await dialog.getByText(/nbd\+unix:/).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await replica.getByRole('button', { name: 'Reverse replication…' }).click();
  await dialog.getByLabel(/The old primary’s VM is off/).check();
  await dialog.getByRole('button', { name: 'Reverse', exact: true }).click();
  await replica.getByText('Primary', { exact: true }).waitFor();
  await replica.getByText('Replication enabled').first().waitFor();
}
