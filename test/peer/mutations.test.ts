/** A thousand mutated peer messages: 850 bodies to the dispatcher, 150 whole requests over TLS. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeFrame } from '../../src/peer/framing.ts';
import { fromWire } from '../../src/peer/peer-errors.ts';
import { headFor, isSafe, logSend, mutatedBody, mutatedHead, mutatedName, PAYLOAD_MAX, VALID, WHOLE } from './mutations.ts';
import { usedBytes } from '../rig/used-bytes.ts';
import { readAll, startRig } from './rig.ts';
import type { Rig } from './rig.ts';

const SEED = Number(process.env['UNDERSTUDY_SEED'] ?? 20260101);
const REFUSALS = new Set(['PEER_MESSAGE_INVALID', 'PEER_MESSAGE_UNKNOWN', 'PEER_PROTOCOL']);
const CALLER = (rig: Rig) => ({ fingerprint: rig.primary.fingerprint, address: '192.0.2.1:5000' });

function handleLogs(rig: Rig): { calls: number; unsafe: string[] } {
  const seen = { calls: 0, unsafe: [] as string[] };
  rig.dispatcher.handle(logSend, async (_caller, params, payload) => {
    seen.calls++;
    if (!isSafe(params, payload)) seen.unsafe.push(JSON.stringify(params));
    return { result: { received: payload.length } };
  });
  return seen;
}

/** The code of a refusal with a remedy, or `answered` for what is a proper result. */
function outcomeOf(reply: Uint8Array): string {
  const frame = decodeFrame(reply, PAYLOAD_MAX);
  assert.ok(!('malformed' in frame), 'every reply is a frame');
  const refusal = fromWire(frame.json);
  if (refusal === null) {
    assert.ok(Number.isInteger((frame.json as { result?: { received?: number } }).result?.received));
    return 'answered';
  }
  assert.ok(refusal.message.length > 0 && refusal.message.length < 1000 && refusal.remedy.length > 0);
  return refusal.code;
}

async function stillAnswers(rig: Rig): Promise<void> {
  assert.deepEqual((await rig.link().call(logSend, VALID, Buffer.alloc(3))).result, { received: 3 });
}

test(`850 mutated bodies are each refused with a reason, or are proper messages (seed ${SEED})`, async () => {
  await using rig = await startRig();
  const seen = handleLogs(rig);
  const outcomes = new Map<string, number>();
  await fc.assert(fc.asyncProperty(mutatedName, mutatedBody, async (name, bytes) => {
    const calls = seen.calls;
    const outcome = outcomeOf(Buffer.concat(await rig.dispatcher.dispatch(CALLER(rig), name, bytes)));
    assert.ok(REFUSALS.has(outcome) || outcome === 'answered', outcome);
    assert.equal(seen.calls - calls, outcome === 'answered' ? 1 : 0);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }), { seed: SEED, numRuns: 150 });
  const settled = await usedBytes();
  await fc.assert(fc.asyncProperty(mutatedBody, async (bytes) => {
    const calls = seen.calls;
    const outcome = outcomeOf(Buffer.concat(await rig.dispatcher.dispatch(CALLER(rig), logSend.name, bytes)));
    assert.ok(outcome === 'PEER_MESSAGE_INVALID' || outcome === 'answered', outcome);
    assert.equal(seen.calls - calls, outcome === 'answered' ? 1 : 0);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }), { seed: SEED, numRuns: 700 });
  assert.deepEqual(seen.unsafe, []);
  const refused = 850 - (outcomes.get('answered') ?? 0);
  assert.ok(refused > 600, `${refused} were refused: the mutations bite`);
  assert.ok((outcomes.get('answered') ?? 0) > 0, 'some only change what a payload or a text may hold');
  const growth = (await usedBytes()) - settled;
  assert.ok(growth < 8 * 1024 * 1024, `${growth} bytes more are in use than before the last 700`);
  assert.deepEqual(rig.log.at('error'), []);
  await stillAnswers(rig);
});

test(`150 mutated requests over TLS are each refused or hung up on, and the server goes on (seed ${SEED})`, async () => {
  await using rig = await startRig({ headersMs: 2_000, idleMs: 2_000, lingerMs: 200 });
  const seen = handleLogs(rig);
  const statuses = new Map<string, number>();
  await stillAnswers(rig);
  const settled = await usedBytes();
  const request = fc.oneof(
    { weight: 3, arbitrary: mutatedHead.map((head) => Buffer.concat([head, WHOLE])) },
    { weight: 1, arbitrary: mutatedBody.map((bytes) => Buffer.concat([headFor(bytes), bytes])) },
  );
  await fc.assert(fc.asyncProperty(request, async (bytes) => {
    const socket = await rig.raw();
    socket.end(bytes);
    const answer = (await readAll(socket)).toString('latin1');
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 'hung up';
    assert.ok(answer === '' || status !== 'hung up', answer.slice(0, 200));
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }), { seed: SEED, numRuns: 150 });
  assert.deepEqual(seen.unsafe, []);
  assert.ok((statuses.get('200') ?? 0) < 75 && (statuses.get('400') ?? 0) > 20, JSON.stringify([...statuses]));
  assert.ok([...statuses.keys()].every((status) => !status.startsWith('5')), JSON.stringify([...statuses]));
  const growth = (await usedBytes()) - settled;
  assert.ok(growth < 8 * 1024 * 1024, `${growth} bytes more are in use than before`);
  assert.deepEqual(rig.log.at('error'), []);
  await stillAnswers(rig);
});
