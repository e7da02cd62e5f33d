import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isRecoverable, retryDelayMs } from './backoff.ts';
import { UnderstudyError } from './errors.ts';
import type { ErrorKind } from './errors.ts';

test('retries follow 1, 2, 4, 8, 10, then every 30 minutes', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 7, 500].map((failures) => retryDelayMs(failures, 300) / 60_000),
    [1, 2, 4, 8, 10, 30, 30, 30],
  );
});

test('the first retry is not later than one cycle', () => {
  assert.deepEqual(
    [1, 2].map((failures) => retryDelayMs(failures, 30) / 1000),
    [30, 120],
  );
  assert.equal(retryDelayMs(0, 900), 60_000);
});

const system = (code: string): Error => Object.assign(new Error(code), { code });
const wrapped = (kind: ErrorKind, code: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError(kind, code, 'message', 'remedy', { cause });

const rows: readonly [name: string, error: unknown, recoverable: boolean][] = [
  ['an unreachable peer may come back', wrapped('peer', 'PEER_NOT_REACHABLE', system('ECONNREFUSED')), true],
  ['a peer error without errno may pass', wrapped('peer', 'PEER_TIMEOUT'), true],
  ['a peer that does not know us needs a person', wrapped('peer', 'PEER_NOT_AUTHORISED'), false],
  ['a clock that is off is mended by time services', wrapped('peer', 'CLOCK_SKEW'), true],
  ['even as a state of the peer', wrapped('state', 'CLOCK_SKEW'), true],
  ['a wrong fingerprint needs a person', wrapped('peer', 'PEER_FINGERPRINT_MISMATCH'), false],
  ['a full volume may be emptied', wrapped('io', 'LOG_WRITE_FAILED', system('ENOSPC')), true],
  ['low memory passes', system('ENOMEM'), true],
  ['the errno is found below other causes', wrapped('io', 'X', new Error('outer', { cause: system('EDQUOT') })), true],
  ['a broken disk needs a person', wrapped('io', 'DISK_READ_FAILED', system('EIO')), false],
  ['an I/O error without errno needs a person', wrapped('io', 'LOG_CORRUPT'), false],
  ['a replica in the wrong state needs a person', wrapped('state', 'INVALID_STATE'), false],
  ['a replica restarted between offer and commit is offered the log anew', wrapped('state', 'LOG_NOT_OFFERED'), true],
  ['a log that arrived damaged is sent again', wrapped('io', 'LOG_DIGEST_MISMATCH'), true],
  ['a VM that is not found needs a person', wrapped('usage', 'VM_UNKNOWN'), false],
  ['a bug is not retried', new TypeError('x is not a function'), false],
  ['what is no error is not retried', 'text', false],
];
for (const [name, error, recoverable] of rows) test(name, () => assert.equal(isRecoverable(error), recoverable));
