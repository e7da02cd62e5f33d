/** The first look: sign-in by link, the overview, live. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pair } from '../rig/pair.ts';
import { picture, TestBrowser } from './browser.ts';

test('a link of the command line signs in once, and the overview shows what happens by itself', async (t) => {
  const browser = await TestBrowser.start(t);
  const pair = await Pair.make(t);
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
