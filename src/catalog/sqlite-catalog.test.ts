import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { CYCLES_KEPT_MAX } from '../model/cycle-history.ts';
import type { EpochRecord, EventRecord, VmRecord } from '../model/records.ts';
import { MIGRATIONS } from './migrations.ts';
import { SqliteCatalog } from './sqlite-catalog.ts';

const vm = (vmId: string, name: string): VmRecord => (
  { vmId, name, createdAt: 1, side: 'primary', disks: [], logFolder: null, attach: 'attached', trustDisk: false, tracking: null });
const epoch = (vmId: string, number: number): EpochRecord => (
  { vmId, epoch: number, status: 'open', openedAt: 1, closedAt: null, disks: [] });
const event = (vmName: string | null, message: string): EventRecord => (
  { time: 5, id: 'Test', level: 'Information', vmId: null, vmName, message, data: { a: [1] } });

function fileFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-catalog-'));
  atEnd(t, () => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'catalog.db');
}

test('rows come back as they were put, in key order, below a first key part', () => {
  const catalog = SqliteCatalog.open(':memory:');
  for (const number of [10, 2, 1]) catalog.epochs.put(epoch('a', number));
  catalog.epochs.put(epoch('b', 3));
  assert.deepEqual(catalog.epochs.list('a').map((row) => row.epoch), [1, 2, 10]);
  assert.equal(catalog.epochs.list().length, 4);
  assert.deepEqual(catalog.epochs.get('b', 3), epoch('b', 3));
  catalog.epochs.put({ ...epoch('b', 3), status: 'closed' });
  assert.equal(catalog.epochs.get('b', 3)?.status, 'closed');
  catalog.epochs.remove('b', 3);
  assert.equal(catalog.epochs.get('b', 3), undefined);
});

test('a VM is read once until it is written; nobody can change what all others see', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.vms.put({ ...vm('a', 'web'), disks: [] });
  const read = catalog.vms.get('a')!;
  assert.equal(catalog.vms.get('a'), read);
  assert.throws(() => (read.name = 'other'), TypeError);
  assert.throws(() => read.disks.push(null as never), TypeError);
  catalog.vms.put({ ...read, name: 'mail' });
  assert.equal(catalog.vms.get('a')!.name, 'mail');
  assert.throws(() => catalog.transaction(() => {
    catalog.vms.put(vm('a', 'lost'));
    assert.equal(catalog.vms.get('a')!.name, 'lost');
    throw new Error('no');
  }), /no/);
  assert.equal(catalog.vms.get('a')!.name, 'mail');
  catalog.vms.remove('a');
  assert.equal(catalog.vms.get('a'), undefined);
});

test('a transaction that throws leaves nothing, also of what was nested in it', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.vms.put(vm('1', 'kept'));
  assert.throws(() => catalog.transaction(() => {
    catalog.vms.put(vm('2', 'lost'));
    catalog.transaction(() => catalog.epochs.put(epoch('2', 1)));
    catalog.addEvent(event('lost', 'lost'));
    throw new Error('half-way');
  }), /half-way/);
  assert.deepEqual(catalog.vms.list().map(({ name }) => name), ['kept']);
  assert.deepEqual(catalog.epochs.list(), []);
  assert.deepEqual(catalog.events({}), []);
  // The next one works as if nothing had been.
  catalog.transaction(() => catalog.vms.put(vm('3', 'later')));
  assert.equal(catalog.vmByName('later')?.vmId, '3');
});

test('a nested failure that is caught inside does not end the outer transaction', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.transaction(() => {
    catalog.vms.put(vm('1', 'one'));
    assert.throws(() => catalog.transaction(() => {
      throw new Error('inner');
    }));
    catalog.vms.put(vm('2', 'two'));
  });
  assert.equal(catalog.vms.list().length, 2);
});

test('a transaction returns what its work returns', () => {
  assert.equal(SqliteCatalog.open(':memory:').transaction(() => 42), 42);
});

test('two VMs cannot have one name, and the failure undoes the whole transaction', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.vms.put(vm('1', 'same'));
  assert.throws(() => catalog.transaction(() => {
    catalog.epochs.put(epoch('2', 1));
    catalog.vms.put(vm('2', 'same'));
  }), /UNIQUE/);
  assert.deepEqual(catalog.epochs.list(), []);
});

test('what was committed is there after the file was opened again, without a clean close', (t) => {
  const path = fileFor(t);
  const catalog = SqliteCatalog.open(path);
  catalog.transaction(() => catalog.vms.put(vm('1', 'one')));
  catalog.setValue('settings', { a: 1 });
  const again = SqliteCatalog.open(path);
  assert.deepEqual(again.vms.get('1'), vm('1', 'one'));
  assert.deepEqual(again.value('settings'), { a: 1 });
  again.close();
  catalog.close();
});

test('commits are durable: write-ahead log with synchronous FULL', (t) => {
  const path = fileFor(t);
  SqliteCatalog.open(path).close();
  const source = readFileSync(new URL('./sqlite-catalog.ts', import.meta.url), 'utf8');
  assert.match(source, /PRAGMA synchronous = FULL/);
  const db = new DatabaseSync(path);
  assert.equal(db.prepare('PRAGMA journal_mode').get()!.journal_mode, 'wal');
  db.close();
});

test('every migration step brings the file of the step before it up to date, keeping its rows', (t) => {
  for (let from = 0; from <= MIGRATIONS.length; from++) {
    const path = fileFor(t);
    const db = new DatabaseSync(path);
    for (const step of MIGRATIONS.slice(0, from)) db.exec(step);
    db.exec(`PRAGMA user_version = ${from}`);
    if (from > 0) db.prepare('INSERT INTO vms (vm_id, name, body) VALUES (?, ?, ?)').run('1', 'old', JSON.stringify(vm('1', 'old')));
    db.close();
    const catalog = SqliteCatalog.open(path);
    assert.equal(catalog.vmByName('old')?.vmId, from > 0 ? '1' : undefined);
    catalog.vms.put(vm('2', 'new'));
    catalog.close();
    const after = new DatabaseSync(path);
    assert.equal(after.prepare('PRAGMA user_version').get()!.user_version, MIGRATIONS.length);
    after.close();
  }
});

test('an existing catalog keeps the past cycles that were one value each; what is no cycle does not keep it from opening', (t) => {
  const path = fileFor(t);
  const db = new DatabaseSync(path);
  for (const step of MIGRATIONS.slice(0, 3)) db.exec(step);
  db.exec('PRAGMA user_version = 3');
  const values: [key: string, body: string][] = [
    ['cycles/a', '[[1000,0,4096,20],[2000,1,0,0],[3000,2,8192,40000],[4000,3,0,0]]'], ['extended cycles/a', '[[5000,0,1,2]]'],
    ['cycles/removed', 'null'], ['cycles/strange', '[[1],[2,9,0,0],["x",0,0,0],7,[6000,0,1.6,2.4]]'], ['cycles/broken', '[[1'],
    ['host-settings', '{"kept":true}'],
  ];
  for (const row of values) db.prepare('INSERT INTO settings (key, body) VALUES (?, ?)').run(...row);
  db.close();
  const catalog = SqliteCatalog.open(path);
  assert.deepEqual(catalog.cycles.list('a'), [
    { at: 1000, outcome: 'success', bytes: 4096, latencyMs: 20 }, { at: 2000, outcome: 'missed', bytes: 0, latencyMs: 0 },
    { at: 3000, outcome: 'late', bytes: 8192, latencyMs: 40_000 }, { at: 4000, outcome: 'failed-attempt', bytes: 0, latencyMs: 0 },
  ]);
  assert.deepEqual(catalog.extended.cycles.list('a'), [{ at: 5000, outcome: 'success', bytes: 1, latencyMs: 2 }]);
  assert.deepEqual(catalog.cycles.list('strange'), [{ at: 6000, outcome: 'success', bytes: 2, latencyMs: 2 }]);
  for (const vmId of ['removed', 'broken']) assert.deepEqual(catalog.cycles.list(vmId), []);
  assert.deepEqual([catalog.value('cycles/a'), catalog.value('host-settings')], [undefined, { kept: true }]);
  // It goes on behind what there was.
  catalog.cycles.add('a', { at: 7000, outcome: 'success', bytes: 1, latencyMs: 1 });
  assert.deepEqual(catalog.cycles.list('a').map(({ at }) => at), [1000, 2000, 3000, 4000, 7000]);
  catalog.close();
});

test('of each VM the newest cycles are kept, oldest first; a leg has its own', () => {
  const catalog = SqliteCatalog.open(':memory:');
  const cycle = (at: number) => ({ at, outcome: 'success', bytes: at, latencyMs: 1 } as const);
  for (let at = 1; at <= CYCLES_KEPT_MAX + 5; at++) catalog.cycles.add('a', cycle(at));
  catalog.cycles.add('b', cycle(9));
  catalog.extended.cycles.add('a', cycle(8));
  assert.deepEqual(catalog.cycles.list('a').map(({ at }) => at), Array.from({ length: CYCLES_KEPT_MAX }, (_, index) => index + 6));
  assert.deepEqual(catalog.cycles.list('a', 2), [cycle(CYCLES_KEPT_MAX + 4), cycle(CYCLES_KEPT_MAX + 5)]);
  catalog.cycles.remove('a');
  assert.deepEqual([catalog.cycles.list('a'), catalog.cycles.list('b'), catalog.extended.cycles.list('a')], [[], [cycle(9)], [cycle(8)]]);
  assert.throws(() => catalog.transaction(() => {
    catalog.cycles.add('b', cycle(10));
    throw new Error('half-way');
  }), /half-way/);
  assert.deepEqual(catalog.cycles.list('b'), [cycle(9)]);
});

test('the rows of past cycles have a bound, however many there were', (t) => {
  const path = fileFor(t);
  const catalog = SqliteCatalog.open(path);
  catalog.lazyTransaction(() => {
    for (let at = 1; at <= 1019; at++) catalog.cycles.add('a', { at, outcome: 'missed', bytes: 0, latencyMs: 0 });
  });
  assert.deepEqual([catalog.cycles.list('a').length, catalog.cycles.list('a').at(-1)!.at], [CYCLES_KEPT_MAX, 1019]);
  catalog.close();
  const db = new DatabaseSync(path);
  assert.ok(Number(db.prepare('SELECT count(*) AS rows FROM cycles').get()!.rows) < CYCLES_KEPT_MAX + 20);
  db.close();
});

test('a catalog of a newer program is refused and left as it is', (t) => {
  const path = fileFor(t);
  SqliteCatalog.open(path).close();
  const db = new DatabaseSync(path);
  db.exec('PRAGMA user_version = 999');
  db.close();
  assert.throws(() => SqliteCatalog.open(path), { code: 'CATALOG_TOO_NEW', message: new RegExp(`has schema 999, this program knows up to ${MIGRATIONS.length}`) });
  const after = new DatabaseSync(path);
  assert.equal(after.prepare('PRAGMA user_version').get()!.user_version, 999);
  after.close();
});

test('a file that is no catalog is refused with a remedy', (t) => {
  const path = fileFor(t);
  writeFileSync(path, 'this is no database, however long it may be'.repeat(100));
  assert.throws(() => SqliteCatalog.open(path), { code: 'CATALOG_UNREADABLE', kind: 'io' });
  assert.throws(() => SqliteCatalog.open(join(path, 'below-a-file')), { code: 'CATALOG_UNREADABLE' });
});

test('events come oldest first: the newest ones that match, after a sequence number', () => {
  const catalog = SqliteCatalog.open(':memory:');
  for (let number = 1; number <= 6; number++) catalog.addEvent(event(number % 2 === 0 ? 'even' : 'odd', `event ${number}`));
  assert.deepEqual(catalog.events({ limit: 2 }).map(({ message }) => message), ['event 5', 'event 6']);
  assert.deepEqual(catalog.events({ vmName: 'even' }).map(({ message }) => message), ['event 2', 'event 4', 'event 6']);
  const [, second] = catalog.events({});
  assert.deepEqual(catalog.events({ after: second!.sequence, vmName: 'odd' }).map(({ message }) => message), ['event 3', 'event 5']);
  assert.deepEqual(catalog.events({ limit: 1 })[0]!.data, { a: [1] });
});

test('old events are dropped, so that the file has a bound', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.transaction(() => {
    for (let number = 0; number < 101_000; number++) catalog.addEvent(event(null, `${number}`));
  });
  const all = catalog.events({ limit: 200_000 });
  assert.equal(all.length, 100_000);
  assert.equal(all.at(-1)!.message, '100999');
});

test('a lazy transaction is all or nothing too; a durable one may hold it, and may not lie in it', () => {
  const catalog = SqliteCatalog.open(':memory:');
  catalog.lazyTransaction(() => catalog.vms.put(vm('1', 'counted')));
  assert.throws(() => catalog.lazyTransaction(() => {
    catalog.vms.put(vm('2', 'lost'));
    catalog.transaction(() => catalog.vms.put(vm('3', 'promised')));
  }), /durable transaction inside/);
  assert.deepEqual(catalog.vms.list().map(({ name }) => name), ['counted']);
  // The refusal above must not stick.
  catalog.transaction(() => catalog.lazyTransaction(() => catalog.vms.put(vm('4', 'both'))));
  assert.deepEqual(catalog.vms.list().map(({ name }) => name), ['counted', 'both']);
});
