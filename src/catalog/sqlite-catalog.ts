/**
 * The catalog in SQLite. Write-ahead log with synchronous = FULL: a transaction is on stable storage when it returns, also over
 * power loss. Rows keep their record as JSON beside the columns that are looked up by; the record types are the schema that
 * matters, and migrations move both.
 *
 * Calls are synchronous on purpose: a log switch is one such call, so no guest write can fall between its parts (R5).
 *
 * Records of VMs and relationships are asked for at guest writes, at pages that arrive and at every status: they are kept as they were read,
 * frozen, until they are written or a transaction fails. Nobody else writes to this file while a server has it.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { CYCLES_KEPT_MAX, type PastCycle } from '../model/cycle-history.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type {
  AuthorizationRecord, Catalog, CycleTable, EpochRecord, EventFilter, EventRecord, ExtendedTables, InboxRecord, PointRecord, RelationshipRecord, Table, VmRecord,
} from '../model/records.ts';
import { MIGRATIONS } from './migrations.ts';

/** Older events are dropped: about a year of a busy host. */
const EVENTS_MAX = 100_000;
const EVENTS_TRIM_EVERY = 1000;
/** So many cycles of a VM come before older ones go: most cycles write one row and no other. */
const CYCLES_TRIM_EVERY = 20;
/** BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB: https://www.sqlite.org/rescode.html */
const SQLITE_OF_THE_FILE: ReadonlySet<number> = new Set([5, 6, 8, 10, 11, 13, 14, 26]);

type KeyPart = string | number;

export class SqliteCatalog implements Catalog {
  readonly vms: Table<[string], VmRecord>;
  readonly relationships: Table<[string], RelationshipRecord>;
  readonly epochs: Table<[string, number], EpochRecord>;
  readonly inbox: Table<[string, number], InboxRecord>;
  readonly points: Table<[string, number], PointRecord>;
  readonly authorizations: Table<[string], AuthorizationRecord>;
  readonly cycles: CycleTable;
  readonly extended: ExtendedTables;
  #db: DatabaseSync;
  readonly #path: string;
  #depth = 0;
  #isLazy = false;
  #statements = new Map<string, StatementSync>();
  readonly #kept: { clear(): void }[] = [];

  private constructor(db: DatabaseSync, path: string) {
    this.#db = db;
    this.#path = path;
    this.vms = this.#keptTable(this.#table('vms', ['vm_id'], (vm) => [vm.vmId], { name: (vm: VmRecord) => vm.name }));
    this.relationships = this.#keptTable(this.#table('relationships', ['vm_id'], (row) => [row.vmId]));
    this.epochs = this.#table('epochs', ['vm_id', 'epoch'], (row) => [row.vmId, row.epoch]);
    this.inbox = this.#table('inbox', ['vm_id', 'epoch'], (row) => [row.vmId, row.epoch]);
    this.points = this.#table('points', ['vm_id', 'epoch'], (row) => [row.vmId, row.epoch]);
    this.extended = {
      relationships: this.#keptTable(this.#table('extended_relationships', ['vm_id'], (row) => [row.vmId])),
      epochs: this.#table('extended_epochs', ['vm_id', 'epoch'], (row) => [row.vmId, row.epoch]),
      tracking: this.#table('extended_tracking', ['vm_id'], (row) => [row.vmId]),
      sets: this.#table('extended_sets', ['vm_id', 'epoch'], (row) => [row.vmId, row.epoch]),
      cycles: this.#cycleTable('extended_cycles'),
    };
    this.cycles = this.#cycleTable('cycles');
    this.authorizations = this.#table('authorizations', ['fingerprint'], (row) => [row.fingerprint]);
  }

  /** Opens or makes the catalog; `:memory:` for tests. Brings an older schema up to date in one transaction per step. */
  static open(path: string): SqliteCatalog {
    let db: DatabaseSync;
    try {
      db = new DatabaseSync(path);
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;');
      migrate(db, path);
    } catch (cause) {
      if (cause instanceof UnderstudyError) throw cause;
      const what = cause instanceof Error ? cause.message : String(cause);
      throw new UnderstudyError('io', 'CATALOG_UNREADABLE', `the catalog ${path} cannot be opened: ${what}`,
        'Check the disk and the permissions of the data folder; restore the folder from a backup when the file is damaged.', { cause });
    }
    return new SqliteCatalog(db, path);
  }

  transaction<T>(work: () => T): T {
    if (this.#isLazy) throw new Error('a durable transaction inside one that is not');
    return this.#run(work);
  }

  lazyTransaction<T>(work: () => T): T {
    if (this.#depth > 0) return work();
    // With a write-ahead log this leaves out the sync at the commit, and nothing else: the file stays whole whatever happens.
    this.#db.exec('PRAGMA synchronous = NORMAL');
    this.#isLazy = true;
    try {
      return this.#run(work);
    } finally {
      this.#isLazy = false;
      this.#db.exec('PRAGMA synchronous = FULL');
    }
  }

  #run<T>(work: () => T): T {
    if (this.#depth > 0) return work();
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      this.#depth = 1;
      const result = work();
      this.#db.exec('COMMIT');
      return result;
    } catch (error) {
      for (const kept of this.#kept) kept.clear();
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw this.#asWriteFailure(error);
    } finally {
      this.#depth = 0;
    }
  }

  /** What the volume or another program does to the file, in words; defects stay what they are. */
  #asWriteFailure(error: unknown): unknown {
    const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0;
    if (!SQLITE_OF_THE_FILE.has(code)) return error;
    return new UnderstudyError('io', 'CATALOG_NOT_WRITABLE', `the catalog ${this.#path} cannot be written: ${messageOf(error)}`,
      'Make room on the volume of the data folder, or repair it.', { cause: error });
  }

  vmByName(name: string): VmRecord | undefined {
    const row = this.#prepare('SELECT body FROM vms WHERE name = ?').get(name);
    return row === undefined ? undefined : parse<VmRecord>(row);
  }

  addEvent(event: EventRecord): void {
    const done = this.#prepare('INSERT INTO events (time, vm_name, body) VALUES (?, ?, ?)')
      .run(event.time, event.vmName, JSON.stringify(event));
    const sequence = Number(done.lastInsertRowid);
    if (sequence % EVENTS_TRIM_EVERY === 0) {
      this.#prepare('DELETE FROM events WHERE sequence <= ?').run(sequence - EVENTS_MAX);
    }
  }

  events(filter: EventFilter): (EventRecord & { sequence: number })[] {
    // The newest ones that match, oldest first.
    const rows = this.#prepare(`SELECT sequence, body FROM (SELECT sequence, body FROM events
      WHERE sequence > ? AND (? IS NULL OR vm_name = ?) ORDER BY sequence DESC LIMIT ?) ORDER BY sequence`)
      .all(filter.after ?? 0, filter.vmName ?? null, filter.vmName ?? null, filter.limit ?? 1000);
    return rows.map((row) => ({ ...parse<EventRecord>(row), sequence: Number(row.sequence) }));
  }

  value(key: string): unknown {
    const row = this.#prepare('SELECT body FROM settings WHERE key = ?').get(key);
    return row === undefined ? undefined : parse<unknown>(row);
  }

  setValue(key: string, value: unknown): void {
    this.#prepare('INSERT INTO settings (key, body) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body')
      .run(key, JSON.stringify(value));
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close();
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, (statement = this.#db.prepare(sql)));
    return statement;
  }

  /** Rows of numbers and no JSON: one is written with every cycle of every VM. */
  #cycleTable(name: string): CycleTable {
    const insert = `INSERT INTO ${name} (vm_id, sequence, at, outcome, bytes, latency_ms)
      SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3, ?4, ?5 FROM ${name} WHERE vm_id = ?1 RETURNING sequence`;
    const trim = `DELETE FROM ${name} WHERE vm_id = ? AND sequence <= ?`;
    return {
      add: (vmId, { at, outcome, bytes, latencyMs }) => this.lazyTransaction(() => {
        const sequence = Number(this.#prepare(insert).get(vmId, at, outcome, bytes, latencyMs)!.sequence);
        if (sequence % CYCLES_TRIM_EVERY === 0) this.#prepare(trim).run(vmId, sequence - CYCLES_KEPT_MAX);
      }),
      list: (vmId, atMost = CYCLES_KEPT_MAX) => {
        const rows = this.#prepare(`SELECT at, outcome, bytes, latency_ms FROM ${name} WHERE vm_id = ? ORDER BY sequence DESC LIMIT ?`).all(vmId, atMost);
        return rows.reverse().map((row) => (
          { at: Number(row.at), outcome: String(row.outcome) as PastCycle['outcome'], bytes: Number(row.bytes), latencyMs: Number(row.latency_ms) }));
      },
      remove: (vmId) => void this.#prepare(`DELETE FROM ${name} WHERE vm_id = ?`).run(vmId),
    };
  }

  /** The same table, one row a VM; a row that is there is read once. */
  #keptTable<Row extends { vmId: string }>(table: Table<[string], Row>): Table<[string], Row> {
    const kept = new Map<string, Row>();
    this.#kept.push(kept);
    return {
      list: table.list,
      get: (key) => {
        const row = kept.get(key) ?? frozen(table.get(key));
        if (row !== undefined) kept.set(key, row);
        return row;
      },
      // Forgotten first: when it fails, what is there is asked for again.
      put: (row) => {
        kept.delete(row.vmId);
        table.put(row);
      },
      remove: (key) => {
        kept.delete(key);
        table.remove(key);
      },
    };
  }

  #table<Key extends KeyPart[], Row>(
    name: string, keys: readonly string[], keyOf: (row: Row) => Key, columns: Record<string, (row: Row) => SQLInputValue> = {},
  ): Table<Key, Row> {
    const where = (count: number) => (count === 0 ? '' : `WHERE ${keys.slice(0, count).map((key) => `${key} = ?`).join(' AND ')}`);
    const all = [...keys, ...Object.keys(columns), 'body'];
    const insert = `INSERT INTO ${name} (${all.join(', ')}) VALUES (${all.map(() => '?').join(', ')})
      ON CONFLICT (${keys.join(', ')}) DO UPDATE SET ${all.slice(keys.length).map((c) => `${c} = excluded.${c}`).join(', ')}`;
    return {
      get: (...key) => {
        const row = this.#prepare(`SELECT body FROM ${name} ${where(keys.length)}`).get(...key);
        return row === undefined ? undefined : parse<Row>(row);
      },
      put: (row) => {
        const extra = Object.values(columns).map((column) => column(row));
        this.#prepare(insert).run(...keyOf(row), ...extra, JSON.stringify(row));
      },
      remove: (...key) => {
        this.#prepare(`DELETE FROM ${name} ${where(keys.length)}`).run(...key);
      },
      list: (...prefix) => {
        const given = prefix.filter((part): part is KeyPart => part !== undefined);
        const rows = this.#prepare(`SELECT body FROM ${name} ${where(given.length)} ORDER BY ${keys.join(', ')}`).all(...given);
        return rows.map((row) => parse<Row>(row));
      },
    };
  }
}

/** @returns the same, with all that it holds; JSON, so without circles */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  for (const part of Object.values(value)) frozen(part);
  return Object.freeze(value);
}

const parse = <T>(row: Record<string, unknown>): T => JSON.parse(String(row.body)) as T;

function migrate(db: DatabaseSync, path: string): void {
  const found = Number(db.prepare('PRAGMA user_version').get()!.user_version);
  if (found > MIGRATIONS.length) {
    throw new UnderstudyError('io', 'CATALOG_TOO_NEW',
      `the catalog ${path} has schema ${found}, this program knows up to ${MIGRATIONS.length}`,
      'Run the newer version of understudy that made it.');
  }
  for (let step = found; step < MIGRATIONS.length; step++) {
    db.exec(`BEGIN IMMEDIATE; ${MIGRATIONS[step]} PRAGMA user_version = ${step + 1}; COMMIT;`);
  }
}
