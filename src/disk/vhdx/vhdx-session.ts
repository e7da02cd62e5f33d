import type { OpenFile, Random } from '../../model/ports.ts';
import { GUID_ZERO } from './guid.ts';
import { encodeHeader, HEADER_AT, MIB } from './header.ts';
import type { Header } from './header.ts';
import { DESCRIPTORS_PER_ENTRY_MAX, encodeLogEntry, LOG_SECTOR } from './log-entry.ts';
import { replayToFile } from './log-replay.ts';
import type { VhdxImage } from './vhdx-image.ts';

/**
 * Writing sessions of one VHDX file: its headers, its identity GUIDs and its log. Who calls must do so one call after
 * another.
 *
 * - The non-current header is written first and synced, then the other: one good header at any moment.
 * - FileWriteGuid changes before the first change of a session, DataWriteGuid before the first one a guest can see.
 * - The log is switched on by an entry with a new LogGuid that is durable *before* a header names that GUID, so that no
 *   crash leaves a header whose log holds nothing.
 * - The space of an entry is used again only when what it says has been synced to its place, and a newer durable entry
 *   says so.
 */

/** 4 KiB of a structure (never of a payload block), at its place in the file. */
export interface Page {
  offset: number;
  bytes: Uint8Array;
}

export class VhdxSession {
  readonly file: OpenFile;
  readonly #random: Pick<Random, 'uuid'>;
  #header: Header;
  #slot: 0 | 1;
  #fileGuidFresh = false;
  #dataGuidFresh = false;
  /** Offset in the log for the next entry. */
  #next = 0;
  #sequence = 0n;
  /** Entries whose changes may not be durable at their places yet, oldest first. */
  #live: { at: number; length: number }[] = [];
  /**
   * Bytes of the log from the tail that the newest entry names to its end: they must stay until a newer entry is
   * durable.
   */
  #activeBytes = 0;
  /** The size of the file. Durable after the next sync. */
  fileSize: number;

  constructor(file: OpenFile, image: Pick<VhdxImage, 'header' | 'slot' | 'fileSize'>, random: Pick<Random, 'uuid'>) {
    this.file = file;
    this.#header = image.header;
    this.#slot = image.slot;
    this.fileSize = image.fileSize;
    this.#random = random;
  }

  get header(): Readonly<Header> {
    return this.#header;
  }

  get dataGuidFresh(): boolean {
    return this.#dataGuidFresh;
  }

  /** Before any change of the file that a guest cannot see. */
  async beginLayout(): Promise<void> {
    if (this.#fileGuidFresh) return;
    await this.#updateHeader({ fileWriteGuid: this.#random.uuid() });
    this.#fileGuidFresh = true;
  }

  /** Before any change that a guest can see. `dataWriteGuid` when a merge has promised one to the child. */
  async beginData(dataWriteGuid?: string): Promise<void> {
    if (this.#dataGuidFresh) return;
    await this.#updateHeader({
      fileWriteGuid: this.#fileGuidFresh ? this.#header.fileWriteGuid : this.#random.uuid(),
      dataWriteGuid: dataWriteGuid ?? this.#random.uuid(),
    });
    this.#fileGuidFresh = true;
    this.#dataGuidFresh = true;
  }

  /** Replays what an unclean stop left. To a guest nothing changes. */
  async replay(image: Pick<VhdxImage, 'pendingLog'>): Promise<void> {
    await this.beginLayout();
    await replayToFile(this.file, image.pendingLog);
    this.fileSize = await this.file.size();
    await this.#updateHeader({ logGuid: GUID_ZERO });
  }

  async sync(): Promise<void> {
    await this.file.datasync();
    this.#live = [];
  }

  /**
   * Changes structures through the log; durable (in the log) when it resolves. Payload that the pages point to was synced
   * before. Pages of one call that do not fit into one entry are replayed in their order, up to some point.
   */
  async writePages(pages: readonly Page[]): Promise<void> {
    for (let first = 0; first < pages.length; first += DESCRIPTORS_PER_ENTRY_MAX) {
      await this.#append(pages.slice(first, first + DESCRIPTORS_PER_ENTRY_MAX));
    }
  }

  /** As `writePages`, but all at once or not at all. */
  async writeTogether(pages: readonly Page[]): Promise<void> {
    if (pages.length > DESCRIPTORS_PER_ENTRY_MAX)
      throw new RangeError(`${pages.length} pages do not fit into one log entry`);
    if (pages.length > 0) await this.#append(pages);
  }

  async #append(pages: readonly Page[]): Promise<void> {
    const starting = this.#header.logGuid === GUID_ZERO;
    const logGuid = starting ? this.#random.uuid() : this.#header.logGuid;
    if (starting) {
      this.#next = 0;
      this.#sequence = 0n;
      this.#live = [];
      this.#activeBytes = 0;
    }
    const length = (1 + pages.length) * LOG_SECTOR;
    // One sector stays free for the empty entry that lets go of all before it.
    if (this.#activeBytes + length + LOG_SECTOR > this.#header.logLength) {
      await this.sync();
      await this.#appendEntry([], logGuid);
    }
    await this.#appendEntry(pages, logGuid);
    if (starting) await this.#updateHeader({ logGuid });
    for (const { offset, bytes } of pages) await this.file.write([bytes], offset);
  }

  async #appendEntry(pages: readonly Page[], logGuid: string): Promise<void> {
    const at = this.#next;
    const sequence = this.#sequence + 1n;
    const entry = encodeLogEntry({
      tail: this.#live[0]?.at ?? at,
      sequence,
      logGuid,
      writes: pages.map(({ offset, bytes }) => ({ offset, bytes })),
      // The size was durable before: `writePages` comes after a sync.
      flushedFileOffset: this.fileSize - (this.fileSize % MIB),
      lastFileOffset: Math.ceil(this.fileSize / MIB) * MIB,
    });
    await this.#writeRing(entry, at);
    // What older entries changed was written before this sync: the entries after this one do not need them any more.
    await this.file.datasync();
    this.#activeBytes = this.#live.reduce((sum, one) => sum + one.length, entry.length);
    this.#live = [{ at, length: entry.length }];
    this.#next = (at + entry.length) % this.#header.logLength;
    this.#sequence = sequence;
  }

  async #writeRing(entry: Uint8Array, at: number): Promise<void> {
    const { logOffset, logLength } = this.#header;
    const first = Math.min(entry.length, logLength - at);
    await this.file.write([entry.subarray(0, first)], logOffset + at);
    if (first < entry.length) await this.file.write([entry.subarray(first)], logOffset);
  }

  /** A clean stop: everything is at its place, nothing is left to replay. The next change starts a new session. */
  async rest(): Promise<void> {
    await this.sync();
    if (this.#header.logGuid !== GUID_ZERO) await this.#updateHeader({ logGuid: GUID_ZERO });
    this.#fileGuidFresh = false;
    this.#dataGuidFresh = false;
  }

  async #updateHeader(change: Partial<Header>): Promise<void> {
    for (let copy = 0; copy < 2; copy++) {
      const slot = this.#slot === 0 ? 1 : 0;
      const header: Header = { ...this.#header, ...change, sequence: this.#header.sequence + 1n };
      await this.file.write([encodeHeader(header)], HEADER_AT[slot]);
      await this.file.datasync();
      this.#header = header;
      this.#slot = slot;
    }
  }
}
