/**
 * Proof, after this process has died, that nobody else wrote to the disks meanwhile (rules R2, R24).
 *
 * A small file says one of three things: `active` — this process may be writing until this instant — or `quiet` — nothing was
 * being written, and the disks looked like this. No disk write is issued under a `quiet` record or after the instant of an
 * `active` one. So after a crash: quiet → every disk must look exactly as recorded; active → no disk may have been modified
 * after the instant. What another program writes within the rest of an active lease goes unseen; the lease is short for that.
 *
 * The third thing is `lost`: the catalog could not be told of a loss; it is durable.
 *
 * After a machine crash the file must say how long this host may have written at most: else a disk that another host, or a rescue system,
 * has written meanwhile would look like ours. So no disk write is issued but within `DURABLE_MS` of an instant at which the newest record
 * was synced; the sync goes on beside the writes. Else the file need not be durable: two slots in turn, each with a checksum, so that a record cut by
 * the crash leaves the one before it.
 */
import { crc32 } from 'node:zlib';
import type { Clock, OpenFile } from '../model/ports.ts';
import type { SealRecord } from '../model/records.ts';
import type { TriggerNumber } from '../model/resync-trigger.ts';

/** How far ahead an active record reaches: the longest time that somebody else's write after our crash could go unseen. */
export const LEASE_MS = 500;
/** After a machine crash: so much later than the newest instant on record this host may still have written. */
export const DURABLE_MS = 10_000;
const SYNC_AFTER_MS = 4000;
/** Renewed when less is left, so that a busy thread pool does not let it run out under a write. */
const RENEW_BELOW_MS = 300;
/** Characters of a reason that are kept: what a full volume has room for, in a page that is there already. */
const REASON_MAX = 500;
const HEADER_BYTES = 16;
/**
 * Room for the seals of all disks that a VM may have (64, the largest seal has less than 500 bytes). Version 1 had slots of 4096
 * bytes at the start of the file: too small for more than a few disks. They are still read, and never written, so a record of
 * either version stays until one with a larger sequence stands.
 */
const SLOT_BYTES = 65_536;
const SLOTS_AT = 8192;
const SLOTS_V1 = [{ at: 0, size: 4096 }, { at: 4096, size: 4096 }];
/** One sector, so that no crash can tear it: the newest `alive`. */
const ALIVE_AT = SLOTS_AT + 2 * SLOT_BYTES;
const ALIVE_BYTES = 512;
const SLOTS = [...SLOTS_V1, { at: SLOTS_AT, size: SLOT_BYTES }, { at: SLOTS_AT + SLOT_BYTES, size: SLOT_BYTES }];

export type LeaseRecord =
  | { kind: 'active'; until: number }
  | { kind: 'quiet'; seals: Record<string, SealRecord> }
  | LostRecord;

/** A loss that the catalog could not be told (unrecorded-loss.ts). */
export interface LostRecord {
  kind: 'lost';
  trigger: TriggerNumber;
  reason: string;
  /** The change map still names every region that may differ. */
  mapHolds: boolean;
}

export class WriteLease {
  #file: OpenFile;
  #clock: Clock;
  #waitMs: () => number;
  #sequence: number;
  #until = 0;
  #renewing: Promise<void> | null = null;
  /** When what is durable was current. */
  #durableAt = -Infinity;
  #syncing: Promise<void> | null = null;
  #writes: Promise<void> = Promise.resolve();
  #broken = false;
  #generation = 0;
  #isLost = false;

  /** `waitMs`: how long a guest write may wait for a record (promise 1). */
  constructor(file: OpenFile, clock: Clock, sequence: number, waitMs: () => number) {
    this.#file = file;
    this.#clock = clock;
    this.#sequence = sequence;
    this.#waitMs = waitMs;
  }

  /**
   * Null when an active record covers now; else a promise that one does. Never rejects and is bounded: when the record cannot be
   * written the guest goes on, and a crash now would end in a full compare, because nothing could be proven.
   */
  cover(): Promise<void> | null {
    const covered = this.#coverNow();
    const durable = this.#keepDurable();
    return durable === null ? covered : covered === null ? durable : covered.then(() => durable);
  }

  /** Null while what is durable covers now; syncs beside the writes before that ends. */
  #keepDurable(): Promise<void> | null {
    const age = this.#clock.now() - this.#durableAt;
    const aged = age < 0 || age >= SYNC_AFTER_MS;
    if (!aged || this.#broken || this.#isLost) return null;
    this.#syncing ??= this.#sync();
    return age < 0 || age >= DURABLE_MS - LEASE_MS ? this.#syncing : null;
  }

  async #sync(): Promise<void> {
    const at = this.#clock.now();
    const alive = encodeText(Buffer.from(JSON.stringify({ kind: 'alive', at })), 1);
    await this.#bounded(this.#file.write([alive], ALIVE_AT).then(() => this.#file.datasync()));
    this.#syncing = null;
    if (!this.#broken) this.#durableAt = at;
  }

  #coverNow(): Promise<void> | null {
    const left = this.#until - this.#clock.now();
    // More than the whole lease left: the clock was set back; the record would reach too far.
    if ((left > RENEW_BELOW_MS && left <= LEASE_MS) || this.#broken || this.#isLost) return null;
    if (this.#renewing === null) {
      const until = this.#clock.now() + LEASE_MS;
      const generation = this.#generation;
      this.#renewing = this.#bounded(this.#write({ kind: 'active', until })).then(() => {
        this.#renewing = null;
        // A quiet record that was ordered meanwhile is the newer one in the file.
        if (generation === this.#generation) this.#until = until;
      });
    }
    // While some of the lease is left, the renewal goes on beside the writes.
    return left > 0 && left <= LEASE_MS ? null : this.#renewing;
  }

  /**
   * Records that nothing is being written and how the disks look. The caller starts no write before this resolves, or covers
   * first.
   */
  async quiet(seals: Record<string, SealRecord>): Promise<void> {
    if (this.#broken || this.#isLost) return;
    this.#until = 0;
    this.#generation++;
    await this.#bounded(this.#write({ kind: 'quiet', seals }));
  }

  /**
   * Puts on record, durably, what the catalog cannot be told: a restart takes it for lost. No other record follows before `recorded`. Never
   * rejects, and is bounded: when it cannot be written it resolves after the last active record has run out, so that nothing is proven.
   */
  async lost(loss: Omit<LostRecord, 'kind'>): Promise<void> {
    this.#isLost = true;
    this.#until = 0;
    this.#generation++;
    if (!this.#broken) await this.#bounded(this.#write({ kind: 'lost', ...loss, reason: loss.reason.slice(0, REASON_MAX) }).then(() => this.#file.datasync()));
    if (this.#broken) await this.#clock.sleep(LEASE_MS);
  }

  /** The catalog knows of the loss. Durably, or a machine crash much later would find the old record and ask for more than is needed. */
  recorded(): void {
    this.#isLost = false;
    void this.cover()?.then(() => this.#file.datasync()).catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#bounded(this.#writes);
    await this.#file.close();
  }

  #write(record: LeaseRecord): Promise<void> {
    const bytes = encodeLease(record, ++this.#sequence);
    const at = SLOTS_AT + (this.#sequence % 2) * SLOT_BYTES;
    this.#writes = this.#writes.then(() => this.#file.write([bytes], at));
    return this.#writes;
  }

  async #bounded(written: Promise<void>): Promise<void> {
    const timer = new AbortController();
    const late = this.#clock.sleep(this.#waitMs(), timer.signal).then(() => 'late', () => 'stopped');
    const outcome = await Promise.race([written.then(() => 'written', () => 'failed'), late]);
    timer.abort();
    if (outcome !== 'written') this.#broken = true;
  }
}

export interface FoundLease {
  /** The newest whole record; null when there is none. */
  record: LeaseRecord | null;
  sequence: number;
  /** The newest instant at which this host was surely there; null when none is on record. */
  aliveAt: number | null;
}

export async function readLease(file: OpenFile): Promise<FoundLease> {
  const buffer = Buffer.alloc(ALIVE_AT + ALIVE_BYTES);
  const bytes = buffer.subarray(0, await file.read(buffer, 0));
  let newest: { record: LeaseRecord | null; sequence: number } = { record: null, sequence: 0 };
  for (const { at, size } of SLOTS) {
    const found = decodeLease<LeaseRecord>(bytes.subarray(at, at + size));
    if (found !== null && found.sequence > newest.sequence) newest = found;
  }
  const alive = decodeLease<{ kind: 'alive'; at: number }>(bytes.subarray(ALIVE_AT))?.record.at;
  const { record } = newest;
  const told = record?.kind === 'active' ? record.until - LEASE_MS : undefined;
  const known = [alive, told].filter((instant) => instant !== undefined);
  return { ...newest, aliveAt: known.length === 0 ? null : Math.max(...known) };
}

/*
 *  offset  size  field      one slot, little-endian; what lies behind the text is of older records
 *       0     8  sequence   the largest one of the valid slots counts
 *       8     4  length     of the JSON text
 *      12     4  crc32      of bytes 0–11 and the text
 *      16     n  text       LeaseRecord as JSON
 */
function encodeLease(record: LeaseRecord, sequence: number): Uint8Array {
  const text = Buffer.from(JSON.stringify(record));
  if (text.length > SLOT_BYTES - HEADER_BYTES) return encodeLease({ kind: 'quiet', seals: {} }, sequence);
  return encodeText(text, sequence);
}

function encodeText(text: Buffer, sequence: number): Uint8Array {
  const slot = Buffer.alloc(HEADER_BYTES + text.length);
  slot.writeBigUInt64LE(BigInt(sequence), 0);
  slot.writeUInt32LE(text.length, 8);
  slot.set(text, HEADER_BYTES);
  slot.writeUInt32LE(checksum(slot, text.length), 12);
  return slot;
}

/** `slot` may be cut short by the end of the file. */
function decodeLease<T>(slot: Buffer): { record: T; sequence: number } | null {
  if (slot.length <= HEADER_BYTES) return null;
  const length = slot.readUInt32LE(8);
  if (length === 0 || length > slot.length - HEADER_BYTES || slot.readUInt32LE(12) !== checksum(slot, length)) return null;
  const record = JSON.parse(slot.toString('utf8', HEADER_BYTES, HEADER_BYTES + length)) as T;
  return { record, sequence: Number(slot.readBigUInt64LE(0)) };
}

const checksum = (slot: Buffer, length: number) =>
  crc32(slot.subarray(HEADER_BYTES, HEADER_BYTES + length), crc32(slot.subarray(0, 12)));
