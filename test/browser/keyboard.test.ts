/**
 * Keys alone, and no more motion than is wished for. Every dialog opens from its button with Enter, keeps the focus inside, closes with Escape, and
 * gives the focus back; what is decided in it is decided with keys.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Locator, Page } from 'playwright-core';
import { atEnd } from '../rig/at-end.ts';
import { Pair } from '../rig/pair.ts';
import { temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import { accessible, inspect, TestBrowser } from './browser.ts';

/** Tab stops of the longest page. */
const STOPS_MAX = 80;

const isFocused = async (target: Locator) => await target.and(target.page().locator(':focus')).count() === 1;

/** With Tab only, from wherever the focus is. */
async function tabTo(page: Page, target: Locator): Promise<void> {
  await page.bringToFront();
  for (let stop = 0; stop < STOPS_MAX; stop++) {
    if (await isFocused(target)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`${STOPS_MAX} times Tab does not lead to ${String(target)}`);
}

async function press(page: Page, target: Locator, key = 'Enter'): Promise<void> {
  await target.waitFor();
  await tabTo(page, target);
  await page.keyboard.press(key);
}

/** Opens the dialog of a button with keys, walks once around in it, and closes it; the focus is where it was. */
async function walkThrough(page: Page, opener: Locator, title: RegExp, look: (page: Page) => Promise<void> = accessible): Promise<void> {
  await press(page, opener);
  const dialog = page.getByRole('dialog', { name: title });
  await dialog.waitFor();
  const inside = () => page.evaluate<boolean>('document.activeElement === document.body || document.activeElement.closest("dialog[open]") !== null');
  const reached = new Set<string>();
  for (let stop = 0; stop < 16; stop++) {
    assert.equal(await inside(), true, `Tab ${stop} leaves the dialog ${String(title)}`);
    reached.add(await page.evaluate<string>('document.activeElement.textContent || document.activeElement.name || document.activeElement.tagName'));
    await page.keyboard.press('Tab');
  }
  for (const name of await dialog.getByRole('button', { disabled: false }).allInnerTexts()) {
    assert.ok(reached.has(name), `Tab does not reach ${name} in ${String(title)}: ${[...reached].join(', ')}`);
  }
  await look(page);
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await isFocused(opener), true, `after ${String(title)} the focus is back on its button`);
}

const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true });

test('keys alone lead through the page', async (t) => {
  const browser = await TestBrowser.start(t);
  const server = new TestServer('berlin', join(await temporaryFolder(t), 'berlin'));
  atEnd(t, () => server.kill9());
  answerInside(server);
  await server.start();
  const page = await browser.signedIn(server);
  await page.getByText('No virtual machine yet').waitFor();
  await inspect(page, 'nothing-yet');
  const pressed = async (key: string) => {
    await page.keyboard.press(key);
    return page.evaluate<string>(`document.activeElement.textContent`);
  };
  assert.equal(await pressed('Tab'), 'Skip to the content');
  await pressed('Enter');
  assert.equal(await page.evaluate(`document.activeElement.id`), 'main');
  assert.equal(await pressed('Tab'), 'Add a VM');
  await pressed('Enter');
  await page.getByRole('heading', { name: 'Add a VM' }).waitFor();
});

test('keys alone open, operate and leave every dialog', async (t) => {
  const browser = await TestBrowser.start(t);
  const pair = await Pair.make(t, { sizes: [8 << 20], inside: true });
  await pair.replicate();
  const [primary, replica] = [await browser.signedIn(pair.primary), await browser.signedIn(pair.replica)];
  for (const page of [primary, replica]) await press(page, page.getByRole('rowheader').getByRole('link', { name: 'vm1' }));
  const tab = (page: Page, name: string) => press(page, page.getByRole('navigation', { name: 'About vm1' }).getByRole('link', { name }));

  await t.test('on the primary', async () => {
    await walkThrough(primary, button(primary, 'Verify'), /Verify the replica/, (page) => inspect(page, 'verify-dialog'));
    await walkThrough(primary, button(primary, 'Remove replication…'), /Remove replication/, (page) => inspect(page, 'remove-dialog'));
    await tab(primary, 'Recovery points');
    await walkThrough(primary, button(primary, 'Planned failover…'), /prepare the primary/);
    await tab(primary, 'Resynchronization');
    await walkThrough(primary, button(primary, 'Resynchronize…'), /first\?/, (page) => inspect(page, 'pause-first-dialog'));
  });

  await t.test('on the replica', async () => {
    await walkThrough(replica, button(replica, 'Extend replication…'), /Extend replication of vm1/);
    await tab(replica, 'Recovery points');
    await walkThrough(replica, button(replica, 'Test failover…'), /^Test failover/);
    await walkThrough(replica, button(replica, 'Failover…'), /^Failover/);
    await press(replica, button(replica, 'Test failover…'));
    await press(replica, button(replica, 'Start the test'));
    const served = replica.getByRole('dialog', { name: 'The disks are served' });
    await served.waitFor();
    await inspect(replica, 'served-dialog');
    await press(replica, served.getByRole('button', { name: 'Close' }));
    await served.waitFor({ state: 'detached' });
    // Its button is gone, as the test runs: the next Tab goes on in the page, not at its top.
    await replica.getByText(/A test failover is running/).waitFor();
    await walkThrough(replica, button(replica, 'Stop test failover'), /Stop the test failover/);
    await replica.keyboard.press('Enter');
    await press(replica, button(replica, 'Stop the test'));
    await button(replica, 'Test failover…').waitFor();
  });

  await t.test('an authorisation taken back', async () => {
    await press(replica, replica.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Peers' }));
    await walkThrough(replica, button(replica, 'Take back…'), /Take the authorisation back/, (page) => inspect(page, 'take-back-dialog'));
  });
  await t.test('a resynchronization at a time, decided with keys, and its start dropped', async () => {
    await press(primary, button(primary, 'Resynchronize…'));
    await press(primary, button(primary, 'Pause replication'));
    await primary.getByText('Replication paused').first().waitFor();
    await walkThrough(primary, button(primary, 'Resynchronize…'), /Resume replication of vm1/);
    await primary.keyboard.press('Enter');
    const now = primary.getByRole('radio', { name: /^Now/ });
    await now.waitFor();
    await tabTo(primary, now);
    await primary.keyboard.press('ArrowUp');
    assert.equal(await primary.getByRole('radio', { name: /^At a time/ }).isChecked(), true);
    await press(primary, primary.getByRole('dialog').getByRole('button', { name: 'Resume' }));
    await primary.getByText(/It starts by itself/).first().waitFor();
    await walkThrough(primary, button(primary, 'Cancel…'), /Cancel the resynchronization/);
    await walkThrough(primary, button(primary, 'Resume replication…'), /Resume replication of vm1/);
  });
  assert.deepEqual(browser.complaints, []);
});

test('nothing moves for whoever does not want that', async (t) => {
  const browser = await TestBrowser.start(t);
  const pair = await Pair.make(t, { sizes: [1 << 20], inside: true });
  await pair.replicate();
  const page = await browser.signedIn(pair.primary);
  await page.locator('.meter .fill').first().waitFor();
  /** Longest transition or animation of any element. */
  const motion = () => page.evaluate<number>(`Math.max(...[...document.querySelectorAll('*')].flatMap((element) => {
    const { transitionDuration, animationDuration } = getComputedStyle(element);
    return [transitionDuration, animationDuration].flatMap((list) => list.split(', ').map(parseFloat));
  }))`);
  await page.emulateMedia({ reducedMotion: 'no-preference' });
  assert.ok(await motion() > 0, 'bars move else');
  await page.emulateMedia({ reducedMotion: 'reduce' });
  assert.equal(await motion(), 0);
});
