import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../model/errors.ts';
import type { PeerLink } from '../peer/link.ts';
import type { AnsweredVm, ReportedVm } from './messages.ts';
import { reportTogether } from './report-batch.ts';

const line = (vmId: string) => ({ vmId }) as ReportedVm;
const open = new AbortController().signal;

/** `answer`: what the peer says to a message of these VMs. */
function rig(answer: (ids: string[], signal: AbortSignal) => Promise<string[]>) {
  const asked: string[][] = [];
  const link = {
    async call(_message: unknown, { vms }: { vms: ReportedVm[] }, _payload: unknown, { signal }: { signal: AbortSignal }) {
      const ids = vms.map(({ vmId }) => vmId);
      asked.push(ids);
      return { result: { vms: (await answer(ids, signal)).map((vmId) => ({ vmId }) as AnsweredVm) } };
    },
  } as unknown as PeerLink;
  const ports = { clock: { now: () => 0, monotonic: () => 0, sleep: () => new Promise<void>((resolve) => setImmediate(resolve)) } };
  return { asked, report: (vmId: string, signal = open) => reportTogether(ports, link, line(vmId), signal) };
}

test('what is said at one moment is one message, each hears its own answer, and the next moment is another', async () => {
  const { asked, report } = rig(async (ids) => ids.filter((id) => id !== 'b').reverse());
  const answers = await Promise.all(['a', 'b', 'c'].map((id) => report(id)));
  assert.deepEqual(answers.map((answer) => answer?.vmId), ['a', undefined, 'c']);
  assert.equal((await report('d'))?.vmId, 'd');
  assert.deepEqual(asked, [['a', 'b', 'c'], ['d']]);
});

test('a message has fifty lines at most', async () => {
  const { asked, report } = rig(async (ids) => ids);
  const ids = Array.from({ length: 120 }, (_, index) => `vm${index}`);
  assert.deepEqual((await Promise.all(ids.map((id) => report(id)))).map((answer) => answer?.vmId), ids);
  assert.deepEqual(asked.map(({ length }) => length), [50, 50, 20]);
});

test('a failing link fails all lines at once; a refusal, which may be the fault of one, is asked again line by line', async () => {
  const down = rig(async () => { throw new UnderstudyError('peer', 'PEER_UNREACHABLE', 'down', 'wait'); });
  const failed = await Promise.allSettled(['a', 'b'].map((id) => down.report(id)));
  assert.deepEqual([failed.map(({ status }) => status), down.asked.length], [['rejected', 'rejected'], 1]);

  const refusing = rig(async (ids) => {
    if (ids.includes('bad')) throw new UnderstudyError('io', 'PEER_INTERNAL', 'failed', 'read its log');
    return ids;
  });
  const heard = await Promise.allSettled(['a', 'bad', 'c'].map((id) => refusing.report(id)));
  assert.deepEqual(heard.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled']);
  assert.deepEqual(refusing.asked, [['a', 'bad', 'c'], ['a'], ['bad'], ['c']]);
});

test('who gives up waits no longer, and the message is cut only when all have', async () => {
  const signals: AbortSignal[] = [];
  const { report } = rig((_ids, signal) => new Promise((_, reject) => {
    signals.push(signal);
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  }));
  const [first, second] = [new AbortController(), new AbortController()];
  const waiting = [report('a', first.signal), report('b', second.signal)];
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  first.abort(new Error('first leaves'));
  await assert.rejects(waiting[0]!, /first leaves/);
  assert.equal(signals[0]!.aborted, false);
  second.abort(new Error('second leaves'));
  await assert.rejects(waiting[1]!, /second leaves/);
  assert.equal(signals[0]!.aborted, true);
  await assert.rejects(report('c', first.signal), /first leaves/);
});
