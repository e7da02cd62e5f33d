/**
 * What other people's scripts rest on: names of commands, options and JSON fields that stay. The lists are written down here once more on
 * purpose: a change of the program must not change what was promised.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { z } from 'zod';
import { COMMANDS } from '../../src/cli/program.ts';
import { OPERATIONS, type OperationName } from '../../src/server/api/contract.ts';
import { run } from './fake-host.ts';

/** Command, arguments in commander's words, options. */
const WORDS: readonly (readonly [path: string, words: string, ...options: string[]])[] = [
  ['disk info', '<disk>'], ['disk compare', '<a> <b>', '--rsh'], ['disk sync', '<src> <dest>', '--rsh'],
  ['disk convert', '<src> <dest>', '--format'], ['disk check', '<disk>'], ['log show', '<file>'],
  ['serve', '', '--peer', '--http', '--name'], ['fingerprint', ''],
  ['authorize', '<fingerprint>', '--name', '--storage', '--trust-group'],
  ['vm add', '<name>', '--disk', '--log-dir'], ['vm list', ''], ['vm show', '<name>'], ['vm attach', '<name>'],
  ['vm stop', '<name>'], ['vm remove', '<name>'],
  ['enable', '<name>', '--replica', '--fingerprint', '--frequency', '--recovery-history', '--auto-resync', '--exclude-disk'],
  ['start', '<name>', '--at', '--export', '--use-existing'], ['import', '<name>', '--from'], ['status', '[name]'],
  ['health', '[name]', '--check'], ['sync-now', '<name>'], ['suspend', '<name>'],
  ['resume', '<name>', '--resynchronize', '--at', '--continue'], ['cancel-resync', '<name>'], ['set', '<name>', '--log-limit'],
  ['remove', '<name>'], ['reset-statistics', '<name>'],
  ['resync status', '<name>'], ['verify', '<name>', '--repair'], ['points', '<name>'],
  ['failover', '<name...>', '--test', '--prepare', '--planned', '--point'], ['failover cancel', '<name>'],
  ['failover complete', '<name>'], ['reverse', '<name>'], ['events', '[name]', '--follow'], ['doctor', ''],
];

const STATUS = ['vmName', 'state', 'stateNumber', 'wmiState', 'health', 'mode', 'relationship', 'frequencySec', 'primaryServer', 'replicaServer',
  'lastReplicationTime', 'lastAppliedLogTime', 'pendingBytes', 'autoResynchronizeEnabled', 'autoResynchronizeIntervalStart',
  'autoResynchronizeIntervalEnd', 'resynchronizeStartTime', 'healthDetails'];
const AS_STATUS = ['enable', 'start', 'import', 'status', 'suspend', 'resume', 'cancel-resync', 'set', 'remove', 'failover', 'failover.cancel',
  'failover.complete', 'reverse'] as const;
const VM = ['vmId', 'name', 'disks.path', 'disks.format', 'disks.virtualSize', 'disks.uri', 'attached'];

const FIELDS: readonly (readonly [OperationName, readonly string[]])[] = [
  ['fingerprint', ['fingerprint', 'name']],
  ['authorize', ['fingerprint', 'name', 'storage', 'trustGroup']],
  ...(['vm.add', 'vm.list', 'vm.show', 'vm.attach', 'vm.stop', 'vm.remove'] as const).map((name) => [name, VM] as const),
  ...AS_STATUS.map((name) => [name, STATUS] as const),
  ['sync-now', ['logSequence', 'bytes', 'seconds']],
  ['resync.status', ['phase', 'rung', 'reason', 'percent', 'disks.path', 'disks.totalBytes', 'disks.comparedBytes', 'disks.differingBytes',
    'disks.sentBytes', 'etaSeconds']],
  ['verify', ['equal', 'comparedBytes', 'differingBytes', 'unprovenBytes', 'at']],
  ['points', ['id', 'time', 'kind', 'bytes']],
  ['events', ['time', 'id', 'level', 'vmName', 'message', 'data']],
  ['doctor', ['check', 'ok', 'detail', 'remedy']],
];

const folder = mkdtempSync(join(tmpdir(), 'understudy-contract-'));
after(() => rmSync(folder, { recursive: true }));

/** How many arguments there are, and which may be left out or repeated. */
const shapeOf = (words: string): string => words.replaceAll(/[a-z]+/g, '');

test('the commands and their options', () => {
  for (const [path, words, ...options] of WORDS) {
    const command = COMMANDS.find((each) => each.path === path);
    assert.ok(command, `there is no command ${path}`);
    assert.equal(shapeOf(command.arguments ?? ''), shapeOf(words), path);
    const known = (command.options ?? []).map(({ long }) => long);
    assert.deepEqual(options.filter((option) => !known.includes(option)), [], `${path} lacks options`);
  }
});

interface Schema {
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
}

/** The objects a result can be made of: those of an array, those of a choice. */
function objectsOf(schema: Schema): Schema[] {
  if (schema.anyOf !== undefined) return schema.anyOf.flatMap(objectsOf);
  if (schema.items !== undefined) return objectsOf(schema.items);
  return schema.properties === undefined ? [] : [schema];
}

test('the fields of what the host answers are always there', () => {
  for (const [name, promised] of FIELDS) {
    const objects = objectsOf(z.toJSONSchema(OPERATIONS[name].result, { io: 'output', unrepresentable: 'any' }) as Schema);
    assert.ok(objects.length > 0, name);
    for (const object of objects) {
      for (const path of promised) {
        const [first, second] = path.split('.') as [string, string?];
        assert.ok(object.required?.includes(first), `${name} may lack ${first}`);
        if (second !== undefined) for (const inner of objectsOf(object.properties![first]!)) assert.ok(inner.required?.includes(second), `${name} may lack ${path}`);
      }
    }
  }
});

/** A choice from a closed list of words. */
test('words that scripts match on', () => {
  const text = (name: OperationName) => JSON.stringify(z.toJSONSchema(OPERATIONS[name].result, { io: 'output', unrepresentable: 'any' }));
  for (const rung of ['logs', 'suspect-regions', 'full-compare', 'full-copy']) assert.ok(text('resync.status').includes(`"${rung}"`), rung);
  for (const kind of ['standard', 'application-consistent', 'latest']) assert.ok(text('points').includes(`"${kind}"`), kind);
});

test('the fields and exit codes of commands that need no server', async () => {
  const [a, b, c] = ['a.raw', 'b.raw', 'c.vhdx'].map((name) => join(folder, name)) as [string, string, string];
  for (const path of [a, b]) {
    writeFileSync(path, 'same');
    truncateSync(path, 1 << 20);
  }
  const json = async (exit: number, ...words: string[]): Promise<Record<string, unknown>> => {
    const done = await run([...words, '--json']);
    assert.equal(done.code, exit, `${words.join(' ')}: ${done.stdout}${done.stderr}`);
    return done.json() as Record<string, unknown>;
  };
  const has = (value: object, ...names: string[]) => assert.deepEqual(names.filter((name) => !(name in value)), []);

  const info = await json(0, 'disk', 'info', a);
  has(info, 'format', 'variant', 'virtualSize', 'logicalSectorSize', 'physicalSectorSize', 'geometry', 'parent', 'dirtyLog', 'identity');
  assert.deepEqual([info['format'], info['variant'], info['geometry']], ['raw', 'fixed', null]);
  const equal = await json(0, 'disk', 'compare', a, b);
  has(equal, 'equal', 'comparedBytes', 'differingBytes', 'firstDifference', 'seconds');
  assert.deepEqual([equal['equal'], equal['comparedBytes'], equal['firstDifference']], [true, 1 << 20, null]);
  writeFileSync(b, 'some', { flag: 'r+' });
  const differs = await json(1, 'disk', 'compare', a, b);
  assert.deepEqual([differs['equal'], differs['differingBytes'], differs['firstDifference']], [false, 4096, 1]);
  const synced = await json(0, 'disk', 'sync', a, b);
  has(synced, 'comparedBytes', 'differingBytes', 'sentBytes', 'wireBytes', 'seconds', 'equal');
  assert.equal(synced['equal'], false, 'equal is of before the sync');
  has(await json(0, 'disk', 'convert', a, c, '--format', 'vhdx'), 'virtualSize', 'seconds');
  assert.equal((await json(0, 'disk', 'info', c))['variant'], 'dynamic');
  has(await json(0, 'disk', 'check', c), 'ok', 'findings');
  truncateSync(b, 2 << 20);
  for (const words of [['compare', a, b], ['sync', a, b], ['info', join(folder, 'none.raw')]]) {
    has(await json(2, 'disk', ...words), 'error');
  }
});
