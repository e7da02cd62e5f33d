/** Operations that take time: progress, interruption, following, watching. */

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { CallContext, HostEvent, HostOperations, Progress } from '../../src/server/api/contract.ts';
import { STATUS, run, startFakeHost } from './fake-host.ts';

const VERIFIED = {
  vmName: 'web1',
  equal: true,
  comparedBytes: 1,
  differingBytes: 0,
  unprovenBytes: 0,
  at: '2031-05-04T20:00:00.000Z',
};
const MIB = 2 ** 20;

function progressing(steps: Progress[]): Partial<HostOperations> {
  return {
    verify: (_params, context) => {
      for (const step of steps) context.progress(step);
      return Promise.resolve(VERIFIED);
    },
  };
}

const STEPS: Progress[] = [0, 4, 9, 10, 55, 100].map((percent) => ({
  phase: 'compare',
  done: percent * MIB,
  total: 100 * MIB,
  unit: 'bytes',
  rate: 2 * MIB,
  etaSeconds: 65,
  disk: '/srv/web1.raw',
}));

test('progress without a terminal is plain lines on stderr, a new one for ten more percent', async () => {
  await using host = await startFakeHost(
    progressing([...STEPS, { phase: 'merge', done: 0, total: 0, unit: 'bytes' }]),
  );
  const { stdout, stderr } = await run(['verify', 'web1', '--json'], { dataFolder: host.dataFolder });
  assert.deepEqual(JSON.parse(stdout), VERIFIED);
  assert.deepEqual(stderr.split('\n'), [
    'compare  0 %  0 B of 100 MiB  2 MiB/s  1 min 5 s left  /srv/web1.raw',
    'compare  10 %  10 MiB of 100 MiB  2 MiB/s  1 min 5 s left  /srv/web1.raw',
    'compare  55 %  55 MiB of 100 MiB  2 MiB/s  1 min 5 s left  /srv/web1.raw',
    'compare  100 %  100 MiB of 100 MiB  2 MiB/s  1 min 5 s left  /srv/web1.raw',
    'merge',
    '',
  ]);
});

test('progress on a terminal is one line with a bar, which is gone at the end', async () => {
  await using host = await startFakeHost(progressing(STEPS));
  const isTTY = { stdin: false, stdout: false, stderr: true };
  const { stderr } = await run(['verify', 'web1'], { dataFolder: host.dataFolder, isTTY });
  assert.ok(stderr.includes('[........................] compare  0 %'));
  assert.ok(stderr.includes('[########################] compare  100 %'));
  assert.ok(!stderr.includes('\n'));
  assert.ok(stderr.endsWith('\r\u001b[2K'));
});

test('progress fits into one line of a narrow terminal, and a terminal without UTF-8 gets plain letters', async () => {
  await using host = await startFakeHost({ ...progressing(STEPS), status: () => Promise.reject(new UnderstudyError('usage', 'SOME_CODE', 'a – “b”', 'c')) });
  const isTTY = { stdin: false, stdout: false, stderr: true };
  const stderrOf = async (words: string[], columns: number, env: Record<string, string>) => {
    let text = '';
    const stderr = Object.assign(new PassThrough().setEncoding('utf8').on('data', (more: string) => (text += more)), { columns });
    await run(words, { stderr, isTTY, env: { UNDERSTUDY_DATA: host.dataFolder, ...env } });
    return text;
  };
  for (const LANG of ['C', 'C.UTF-8']) {
    const narrow = (await stderrOf(['verify', 'web1'], 40, { LANG })).split('\r\u001b[2K');
    assert.ok(narrow.some((line) => line.startsWith('compare  100 %  100 MiB of 100 MiB')), JSON.stringify(narrow));
    assert.deepEqual(narrow.filter((line) => line.length >= 40 || line.includes('[')), []);
    const wide = (await stderrOf(['verify', 'web1'], 80, { LANG })).split('\r\u001b[2K');
    assert.ok(wide.some((line) => line.startsWith('[#') && line.length === 79), JSON.stringify(wide));
  }
  assert.equal(await stderrOf(['status'], 80, { LANG: 'C' }), 'understudy: SOME_CODE: a - "b"\n-> c\n');
  for (const env of [{ LANG: 'de_DE.UTF-8' }, { LANG: 'C', LC_ALL: 'en_US.utf8' }]) {
    assert.equal(await stderrOf(['status'], 80, env), 'understudy: SOME_CODE: a – “b”\n→ c\n');
  }
});

/** An operation that ends only by its signal. */
function endless(started: () => void, ended: (reason: unknown) => void) {
  return (_params: unknown, { signal, progress }: CallContext): Promise<never> => {
    progress({ phase: 'waiting', done: 0, total: 0, unit: 'bytes' });
    started();
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        ended(signal.reason);
        reject(signal.reason as Error);
      });
    });
  };
}

for (const json of [false, true]) {
  test(`Ctrl-C during a long operation aborts it on the host and exits with 130${json ? ' (JSON)' : ''}`, async () => {
    const ctrlC = new AbortController();
    const aborted = Promise.withResolvers<unknown>();
    await using host = await startFakeHost({ 'sync-now': endless(() => ctrlC.abort(), aborted.resolve) });
    const words = ['sync-now', 'web1', ...(json ? ['--json'] : [])];
    const { code, stdout, stderr } = await run(words, { dataFolder: host.dataFolder, signal: ctrlC.signal });
    await aborted.promise;
    assert.equal(code, 130);
    if (json) assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'INTERRUPTED');
    else assert.match(stderr, /understudy: INTERRUPTED: .+\n→ .+\n$/);
    assert.deepEqual(host.defects, []);
  });
}

test('Ctrl-C during a short operation exits with 130, too', async () => {
  const ctrlC = new AbortController();
  const aborted = Promise.withResolvers<unknown>();
  await using host = await startFakeHost({ suspend: endless(() => ctrlC.abort(), aborted.resolve) });
  assert.equal((await run(['suspend', 'web1'], { dataFolder: host.dataFolder, signal: ctrlC.signal })).code, 130);
  await aborted.promise;
});

test('a server that stops aborts what runs, and its caller is told', async () => {
  const started = Promise.withResolvers<void>();
  const host = await startFakeHost({ 'sync-now': endless(started.resolve, () => undefined) });
  const running = run(['sync-now', 'web1'], { dataFolder: host.dataFolder });
  await started.promise;
  await host[Symbol.asyncDispose]();
  const { code, stderr } = await running;
  assert.equal(code, 5);
  assert.match(stderr, /understudy: (INTERRUPTED|SERVER_WENT_AWAY): /);
});

const EVENTS: HostEvent[] = [1, 2].map((number) => ({
  time: '2031-05-04T20:00:00.000Z',
  id: `Event${number}`,
  level: 'Information',
  vmName: 'web1',
  message: `number ${number}`,
  data: {},
}));

/** Emits both events, and one more at each call of the returned function. */
function following(): Pick<HostOperations, 'events'> {
  return {
    events: ({ follow }, { emit, signal }) => {
      if (follow !== true) return Promise.resolve(EVENTS);
      for (const event of EVENTS) emit(event);
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve([])));
    },
  };
}

test('events --follow prints each event as it comes, until interrupted', async () => {
  await using host = await startFakeHost(following());
  const ctrlC = new AbortController();
  const onStdout = (text: string): void => {
    if (text.includes('number 2')) ctrlC.abort();
  };
  const { code, stdout, stderr } = await run(['events', '--follow'], {
    dataFolder: host.dataFolder,
    signal: ctrlC.signal,
    onStdout,
  });
  assert.deepEqual({ code, stderr }, { code: 130, stderr: '' });
  assert.deepEqual(stdout.split('\n'), [
    '2031-05-04 22:00:00  Information  Event1  web1  number 1',
    '2031-05-04 22:00:00  Information  Event2  web1  number 2',
    '',
  ]);
});

test('events --follow --json prints one compact value a line', async () => {
  await using host = await startFakeHost(following());
  const ctrlC = new AbortController();
  const onStdout = (text: string): void => {
    if (text.includes('number 2')) ctrlC.abort();
  };
  const { stdout } = await run(['events', '--follow', '--json'], {
    dataFolder: host.dataFolder,
    signal: ctrlC.signal,
    onStdout,
  });
  const values = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
  assert.deepEqual(values, EVENTS);
});

test('a reader that has enough of --follow ends it without a failure', async () => {
  const aborted = Promise.withResolvers<void>();
  await using host = await startFakeHost({
    events: (_params, { emit, signal }) => {
      emit(EVENTS[0]);
      return new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          aborted.resolve();
          resolve([]);
        });
      });
    },
  });
  const stdout = new PassThrough();
  stdout.once('data', () => stdout.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })));
  const { code, stderr } = await run(['events', '--follow'], { dataFolder: host.dataFolder, stdout });
  await aborted.promise;
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
});

test('status --watch looks again after the interval, and clears the screen on a terminal', async () => {
  await using host = await startFakeHost({ status: () => Promise.resolve([STATUS]) });
  const ctrlC = new AbortController();
  const naps: number[] = [];
  const clock = {
    now: () => 0,
    monotonic: () => 0,
    sleep(ms: number): Promise<void> {
      naps.push(ms);
      if (naps.length === 2) ctrlC.abort();
      return ctrlC.signal.aborted ? Promise.reject(ctrlC.signal.reason as Error) : Promise.resolve();
    },
  };
  const isTTY = { stdin: false, stdout: true, stderr: false };
  const env = { UNDERSTUDY_DATA: host.dataFolder, NO_COLOR: '1' };
  const { code, stdout } = await run(['status', '--watch', '--interval', '0.5'], {
    env,
    clock,
    isTTY,
    signal: ctrlC.signal,
  });
  assert.equal(code, 130);
  assert.deepEqual(naps, [500, 500]);
  assert.equal(stdout.split('\u001b[H\u001b[2JVMName').length - 1, 2);
});

test('resync status --watch ends with the resynchronization, and says what has not changed only once', async () => {
  const base = { vmName: 'web1', rung: 'full-compare', reason: 'a test', percent: 50, disks: [], etaSeconds: null };
  const phases = ['comparing', 'comparing', 'none'];
  await using host = await startFakeHost({ 'resync.status': () => Promise.resolve({ ...base, phase: phases.shift()! } as never) });
  const clock = { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() };
  const { code, stdout } = await run(['resync', 'status', 'web1', '--watch'], { env: { UNDERSTUDY_DATA: host.dataFolder }, clock });
  assert.equal(code, 0);
  assert.deepEqual(stdout.match(/^Phase +(\S+)$/gm)?.map((line) => line.replace(/^Phase +/, '')), ['comparing', 'none']);
  assert.deepEqual(phases, []);
});
