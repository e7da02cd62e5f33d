/** What every adapter that starts guests by itself must do; run over each of them by its own test. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test, type TestContext } from 'node:test';
import { UnderstudyError } from '../../model/errors.ts';
import type { Guest, HypervisorAdapter } from './adapter.ts';

export interface AdapterWorld {
  adapter: HypervisorAdapter;
  /** A guest of this name is on. */
  runs(name: string): Promise<boolean>;
  /** From now on what the adapter calls does this, whatever it is asked. */
  breakIt(how: 'fails' | 'hangs'): Promise<void>;
  /** Nothing that the adapter has started for an action is left. */
  assertNothingLeft(): Promise<void>;
}

/** The process whose id is in this file has ended, if there ever was one. */
export async function assertEnded(pidFile: string): Promise<void> {
  const pid = (await readFile(pidFile, 'utf8').catch(() => '')).trim();
  if (pid === '') return;
  const state = await readFile(`/proc/${pid}/stat`, 'utf8').then((text) => text.split(') ')[1]![0], () => 'gone');
  assert.ok(state === 'gone' || state === 'Z', `process ${pid} is in state ${state}`);
}

export function guestOf(more: Partial<Guest> = {}): Guest {
  return {
    vmId: '11111111-1111-4111-8111-111111111111', vmName: 'web1', name: more.test === true ? 'web1 - Test' : 'web1', test: false, role: 'replica',
    hostName: 'munich', time: '2031-05-04T21:00:12.000Z',
    disks: [{ diskId: 'd0', uri: 'nbd+unix:///web1%2F0?socket=/run/nbd.sock', bytes: 1 << 30, logicalSectorSize: 512 }], ...more,
  };
}

export function adapterSuite(kind: string, make: (t: TestContext) => Promise<AdapterWorld>): void {
  const signal = new AbortController().signal;

  test(`${kind}: a guest is started once, shut down once, and both may be asked again`, async (t) => {
    const { adapter, runs } = await make(t);
    const guest = guestOf();
    assert.equal(await runs('web1'), false);
    await adapter.start(guest, signal);
    assert.equal(await runs('web1'), true);
    await adapter.start(guest, signal);
    assert.equal(await runs('web1'), true);
    await adapter.stop(guest, signal);
    assert.equal(await runs('web1'), false);
    await adapter.stop(guest, signal);
    await adapter.start(guest, signal);
    assert.equal(await runs('web1'), true);
  });

  test(`${kind}: a guest is turned off at once, also one that was never on`, async (t) => {
    const { adapter, runs } = await make(t);
    await adapter.powerOff(guestOf(), signal);
    await adapter.start(guestOf(), signal);
    await adapter.powerOff(guestOf(), signal);
    assert.equal(await runs('web1'), false);
    await adapter.powerOff(guestOf(), signal);
  });

  test(`${kind}: the test guest is another one than the guest`, async (t) => {
    const { adapter, runs } = await make(t);
    await adapter.start(guestOf({ test: true }), signal);
    assert.deepEqual([await runs('web1'), await runs('web1 - Test')], [false, true]);
    await adapter.start(guestOf(), signal);
    await adapter.powerOff(guestOf({ test: true }), signal);
    assert.deepEqual([await runs('web1'), await runs('web1 - Test')], [true, false]);
  });

  const actions: [string, (adapter: HypervisorAdapter) => Promise<string>][] = [
    ['start', (adapter) => adapter.start(guestOf(), signal)],
    ['stop', (adapter) => adapter.stop(guestOf(), signal)],
    ['power-off', (adapter) => adapter.powerOff(guestOf(), signal)],
    ['start-test', (adapter) => adapter.start(guestOf({ test: true }), signal)],
    ['stop-test', (adapter) => adapter.powerOff(guestOf({ test: true }), signal)],
  ];
  for (const [action, act] of actions) {
    test(`${kind}: ${action} that fails says the last words and what to do`, async (t) => {
      const { adapter, breakIt } = await make(t);
      await breakIt('fails');
      await assert.rejects(act(adapter), (error: UnderstudyError) => {
        assert.equal(error.code, 'ADAPTER_FAILED');
        assert.match(error.message, /web1.*exit code 7.*no such bridge/s);
        assert.notEqual(error.remedy, '');
        return true;
      });
    });

    test(`${kind}: ${action} that hangs is ended in its time, with everything that it started`, async (t) => {
      const { adapter, breakIt, assertNothingLeft } = await make(t);
      await breakIt('hangs');
      await assert.rejects(act(adapter), (error: UnderstudyError) => {
        assert.equal(error.code, 'ADAPTER_TIMED_OUT');
        assert.match(error.message, /after 1 s.*waiting for the bridge/s);
        return true;
      });
      await assertNothingLeft();
    });
  }

  test(`${kind}: an action that is not wanted any more is ended`, async (t) => {
    const { adapter, breakIt, assertNothingLeft } = await make(t);
    await breakIt('hangs');
    const stop = new AbortController();
    const started = adapter.start(guestOf(), stop.signal);
    stop.abort(new Error('it is turned off'));
    await assert.rejects(started, /it is turned off/);
    await assertNothingLeft();
  });
}
