/** How failures look: two lines on stderr or one JSON value on stdout, and the exit code of their kind. */

import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { ErrorKind } from '../../src/model/errors.ts';
import { run, startFakeHost } from './fake-host.ts';

const KINDS: [ErrorKind, number][] = [
  ['usage', 2],
  ['state', 3],
  ['peer', 4],
  ['io', 5],
];

for (const [kind, exit] of KINDS) {
  test(`a failure of kind ${kind} exits with ${exit}, as two lines or as one JSON value`, async () => {
    const failure = new UnderstudyError(kind, 'SOME_CODE', 'one is 1 but the other is 2', 'Make them equal.');
    await using host = await startFakeHost({
      suspend: () => Promise.reject(failure),
      verify: () => Promise.reject(failure),
    });
    for (const command of ['suspend', 'verify']) {
      const read = await run([command, 'web1'], { dataFolder: host.dataFolder });
      assert.deepEqual({ code: read.code, stdout: read.stdout }, { code: exit, stdout: '' });
      assert.equal(read.stderr, 'understudy: SOME_CODE: one is 1 but the other is 2\n→ Make them equal.\n');

      const scripted = await run([command, 'web1', '--json'], { dataFolder: host.dataFolder });
      assert.deepEqual({ code: scripted.code, stderr: scripted.stderr }, { code: exit, stderr: '' });
      const { kind: _, ...promised } = failure.toJSON();
      const { error } = scripted.json() as { error: object };
      assert.deepEqual({ ...error, kind: undefined }, { ...promised, kind: undefined });
    }
    assert.deepEqual(host.defects, []);
  });
}

const MISUSES: [string[], string, RegExp][] = [
  [['statsu'], 'UNKNOWN_COMMAND', /unknown command 'statsu' \(Did you mean status\?\)/],
  [['vm', 'lst'], 'UNKNOWN_COMMAND', /Did you mean list\?/],
  [['status', '--jsn'], 'UNKNOWN_OPTION', /unknown option '--jsn' \(Did you mean --json\?\)/],
  [['suspend'], 'MISSING_ARGUMENT', /missing required argument 'name'/],
  [['suspend', 'web1', 'web2'], 'EXCESS_ARGUMENTS', /too many arguments/],
  [['vm', 'add', 'web1'], 'MISSING_MANDATORY_OPTION_VALUE', /--disk/],
  [['enable', 'web1', '--fingerprint', 'x'], 'MISSING_MANDATORY_OPTION_VALUE', /--replica/],
  [['start', 'web1', '--at'], 'OPTION_MISSING_ARGUMENT', /--at/],
  [['start', 'web1', '--export', 'd', '--use-existing'], 'CONFLICTING_OPTION', /--use-existing/],
  [['resume', 'web1', '--resynchronize', '--continue'], 'CONFLICTING_OPTION', /--continue/],
  [['set', 'web1', '--frequency', '60'], 'INVALID_ARGUMENT', /30, 300, 900/],
  [['set', 'web1', '--recovery-history', '25'], 'INVALID_ARGUMENT', /from 0 to 24/],
  [['set', 'web1', '--disk-rate', 'fast'], 'INVALID_ARGUMENT', /a size such as/],
  [['set', 'web1', '--auto-resync', 'sometimes'], 'INTERVAL_INVALID', /sometimes/],
  [['start', 'web1', '--at', 'soon'], 'START_TIME_INVALID', /soon/],
  [
    ['resume', 'web1', '--resynchronize', '--at', '04/15/2013 12:00:00'],
    'START_TIME_IN_PAST',
    /2013-04-15 12:00:00.*2031-05-04 12:00:00/,
  ],
  [['start', 'web1', '--at', '2031-05-12 12:00'], 'START_TIME_TOO_FAR', /2031-05-12 12:00:00/],
  [['serve', '--peer', 'nowhere'], 'BAD_ADDRESS', /nowhere/],
  [['serve', '--http', '127.0.0.1:70000'], 'BAD_ADDRESS', /70000/],
  [['vm'], 'MISSING_COMMAND', /no command/],
  [[], 'MISSING_COMMAND', /no command/],
];

for (const [words, code, message] of MISUSES) {
  test(`"understudy ${words.join(' ')}" is wrong usage: ${code}, exit code 2, and no server is asked`, async () => {
    const read = await run(words, { dataFolder: '/nowhere' });
    assert.equal(read.code, 2);
    assert.equal(read.stdout, '');
    const lines = read.stderr.trimEnd().split('\n').slice(-2);
    assert.ok(lines[0]!.startsWith(`understudy: ${code}: `), lines[0]);
    assert.match(lines[0]!, message);
    assert.match(lines[1]!, /^→ \S/);

    const scripted = await run([...words, '--json'], { dataFolder: '/nowhere' });
    assert.equal(scripted.code, 2);
    assert.equal((scripted.json() as { error: { code: string } }).error.code, code);
  });
}

test('what the host finds wrong in the parameters is bad input', async () => {
  await using host = await startFakeHost();
  const tries = [
    ['vm', 'show', 'a/b'],
    ['set', 'web1'],
    ['enable', 'web1', '--replica', 'munich', '--fingerprint', '00'],
    ['failover', 'web1', '--point', ''],
  ];
  for (const words of tries) {
    const { code, stderr } = await run(words, { dataFolder: host.dataFolder });
    assert.equal(code, 2);
    const command = words[0] === 'vm' ? 'vm show' : words[0];
    assert.match(stderr, new RegExp(`^understudy: BAD_PARAMETERS: .+\\n→ See: understudy ${command} --help\\n$`));
  }
  assert.deepEqual(host.asked, []);
});

test('without a server the remedy is the command that starts it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-none-'));
  try {
    for (const dataFolder of [folder, join(folder, 'missing')]) {
      const { code, stderr } = await run(['status'], { dataFolder });
      assert.equal(code, 5);
      assert.equal(
        stderr,
        `understudy: SERVER_NOT_RUNNING: no server runs on ${dataFolder}\n` +
          `→ Start it with: understudy serve --data ${dataFolder}\n`,
      );
    }
    writeFileSync(join(folder, 'server.sock'), '');
    chmodSync(join(folder, 'server.sock'), 0o600);
    assert.equal((await run(['status'], { dataFolder: folder })).code, 5);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a server that dies during a call is told from one that is not there', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-dies-'));
  const server = createServer((socket) => socket.once('data', () => socket.destroy()));
  await new Promise<void>((resolve) => server.listen(join(folder, 'server.sock'), resolve));
  try {
    const { code, stderr } = await run(['suspend', 'web1'], { dataFolder: folder });
    assert.equal(code, 5);
    assert.match(stderr, /^understudy: SERVER_WENT_AWAY: /);
  } finally {
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  }
});

test('a server that dies in the middle of a long answer is reported, too', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-dies-'));
  const head = 'HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n';
  const server = createServer((socket) =>
    socket.once('data', () =>
      socket.end(`${head}{"progress":{"phase":"compare","done":1,"total":0,"unit":"bytes"}}\n`),
    ),
  );
  await new Promise<void>((resolve) => server.listen(join(folder, 'server.sock'), resolve));
  try {
    const { code, stderr } = await run(['verify', 'web1'], { dataFolder: folder });
    assert.equal(code, 5);
    assert.match(stderr, /^compare {2}1 B\nunderstudy: SERVER_WENT_AWAY: /);
  } finally {
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  }
});

test('a defect of the host is an I/O failure without its stack, and is logged', async () => {
  await using host = await startFakeHost({ suspend: () => Promise.reject(new TypeError('x is undefined')) });
  const { code, stderr } = await run(['suspend', 'web1'], { dataFolder: host.dataFolder });
  assert.equal(code, 5);
  assert.match(stderr, /^understudy: INTERNAL: x is undefined\n→ This is a defect/);
  assert.equal(host.defects.length, 1);
});

test('a result that breaks the contract is never sent on', async () => {
  await using host = await startFakeHost({ fingerprint: () => Promise.resolve({ name: 'berlin' } as never) });
  const { code, stderr } = await run(['fingerprint'], { dataFolder: host.dataFolder });
  assert.equal(code, 5);
  assert.match(stderr, /INTERNAL: the result of fingerprint breaks the contract: fingerprint: /);
});
