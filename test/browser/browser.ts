/**
 * Real Chromium on the console of a real server. The tests of a file share one browser and nothing in it: each has contexts of its own, and each
 * page signs in with a fresh link of the command line. `npm run test:long`, or UNDERSTUDY_TEST_PICTURES=1, leaves screenshots in
 * test/browser/screenshots (not kept by git), in light, dark and phone width.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import axe from 'axe-core';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { atEnd, type Ending } from '../rig/at-end.ts';
import { buildConsole } from '../../scripts/build-console.ts';
import type { TestServer } from '../rig/server.ts';

const EXECUTABLE = '/usr/bin/chromium';
/** No sandbox: tests run as root in containers. The rest keeps the browser from doing anything of its own. */
const ARGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];
const SCREENSHOTS = join(import.meta.dirname, 'screenshots');
/** Nothing is asserted of pictures, and they take a third of a test's time. */
const PICTURES = process.env.UNDERSTUDY_TEST_LONG === '1' || process.env.UNDERSTUDY_TEST_PICTURES === '1';
const LOOKS = {
  light: { colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  dark: { colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 844 } },
} as const;
/** On a busy machine a page takes its time; nothing in these tests is about speed. */
const PATIENCE_MS = 120_000;

/** Chromium of this file's process, from the first test that asks until the last one has ended. */
let chromiumOfFile: Promise<Browser> | null = null;
after(async () => (await chromiumOfFile)?.close());

export class TestBrowser {
  /** What pages complained about: errors of scripts, and whatever the content security policy blocked. */
  readonly complaints: string[] = [];
  readonly #t: Ending;
  readonly #browser: Browser;

  private constructor(t: Ending, browser: Browser) {
    this.#t = t;
    this.#browser = browser;
  }

  /** Builds the page when it is older than its sources, and starts Chromium if no test of the file has. Its pages go when the test ends. */
  static async start(t: Ending): Promise<TestBrowser> {
    if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing: install Debian's package chromium`);
    if (chromiumOfFile === null) {
      buildConsole();
      chromiumOfFile = chromium.launch({ executablePath: EXECUTABLE, args: ARGS });
    }
    return new TestBrowser(t, await chromiumOfFile);
  }

  async context(): Promise<BrowserContext> {
    const context = await this.#browser.newContext({ viewport: LOOKS.light.viewport, reducedMotion: 'reduce' });
    atEnd(this.#t, () => context.close());
    context.setDefaultTimeout(PATIENCE_MS);
    context.on('weberror', (error) => this.complaints.push(String(error.error())));
    context.on('console', (message) => {
      if (message.type() === 'error' && /Content Security Policy|Uncaught/.test(message.text())) this.complaints.push(message.text());
    });
    return context;
  }

  /** A page of this server, signed in. */
  async signedIn(server: TestServer, words: string[] = [], context?: BrowserContext): Promise<Page> {
    const { url } = await server.json<{ url: string }>('console', ...words);
    const page = await (context ?? (await this.context())).newPage();
    await page.goto(url);
    await page.getByRole('navigation').waitFor();
    return page;
  }
}

/** So that a window is drawn once with all that has changed, and what is only drawn when it is near is there. */
const SETTLED = 'new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))';

async function look(page: Page, name: keyof typeof LOOKS): Promise<void> {
  const { colorScheme, viewport } = LOOKS[name];
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize(viewport);
  await page.evaluate(SETTLED);
}

/** The same page as three pictures: NAME-light.png, NAME-dark.png, NAME-phone.png. With a dialog: what is on the screen; else the whole page. */
export async function picture(page: Page, name: string): Promise<void> {
  if (!PICTURES) return;
  mkdirSync(SCREENSHOTS, { recursive: true });
  for (const each of Object.keys(LOOKS) as (keyof typeof LOOKS)[]) {
    await look(page, each);
    const { viewport } = LOOKS[each];
    if (await page.locator('dialog[open]').count() === 0) {
      const height = await page.evaluate<number>('document.documentElement.scrollHeight');
      await page.setViewportSize({ ...viewport, height: Math.max(viewport.height, height) });
      await page.evaluate(SETTLED);
    }
    await page.screenshot({ path: join(SCREENSHOTS, `${name}-${each}.png`) });
  }
  await look(page, 'light');
}

/** Nothing serious against WCAG 2.1 A and AA, in dark, at phone width and in light; and a phone need not scroll sideways. */
export async function accessible(page: Page): Promise<void> {
  for (const each of ['dark', 'phone', 'light'] as const) {
    await look(page, each);
    if (each === 'phone') {
      const wide = await page.evaluate<number>('document.documentElement.scrollWidth');
      assert.ok(wide <= LOOKS.phone.viewport.width, `${page.url()} is ${wide} px wide on a phone`);
    }
    // Evaluated by the browser itself, so that the page's policy against foreign scripts does not see it; once for each document.
    if (!await page.evaluate<boolean>('"axe" in window')) await page.evaluate(axe.source);
    const { violations } = await page.evaluate<axe.AxeResults>(`axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })`);
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
    assert.deepEqual(serious, [], `${page.url()}, ${each}`);
  }
}

/** A picture and a look for what keeps people out. */
export async function inspect(page: Page, name: string): Promise<void> {
  await accessible(page);
  await picture(page, name);
}
