/**
 * The oracle: everything a guest ever asked of its disks, with the instants of asking and of being answered. Knows whether a
 * state
 * of all disks together is one past instant (promise 2).
 *
 * A sector's content names the write that put it there. That write explains the sector at every instant from its asking until the
 * answer of some later write to the same sector (later: asked after it, and not before it was answered). A state is one past instant when
 * the spans of all sectors, over all disks, have an instant in common.
 */
const SECTOR = 512;

interface Write {
  id: number;
  asked: number;
  /** Infinity while unanswered; a write that died with a crash was never answered, and never will be. */
  answered: number;
  zero: boolean;
}

export class History {
  #writes: Write[] = [];
  /** By disk, by sector: the writes that touched it, in order of asking. */
  #bySector: Map<number, Write[]>[];

  constructor(disks: number) {
    this.#bySector = Array.from({ length: disks }, () => new Map());
  }

  /** Registers a write of whole sectors and returns the bytes to write. */
  ask(disk: number, offset: number, length: number, now: number, zero: boolean): { data: Uint8Array; answered: (at: number) => void } {
    const write: Write = { id: this.#writes.length + 1, asked: now, answered: Infinity, zero };
    this.#writes.push(write);
    const data = Buffer.alloc(length);
    for (let at = 0; at < length; at += SECTOR) {
      const sector = (offset + at) / SECTOR;
      const writes = this.#bySector[disk]!.get(sector);
      if (writes === undefined) this.#bySector[disk]!.set(sector, [write]);
      else writes.push(write);
      // The tail tells a torn sector from a whole one.
      if (!zero) for (const place of [0, SECTOR - 8]) data.writeDoubleLE(write.id, at + place);
    }
    return { data, answered: (at) => (write.answered = at) };
  }

  /**
   * The machine went down: writes that were answered but not flushed may be gone. What the disk holds now is the guest's truth
   * from here on, as if it had been written at this instant.
   */
  reborn(disk: number, content: Uint8Array, now: number): void {
    const view = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
    for (const [sector, writes] of this.#bySector[disk]!) {
      const id = view.readDoubleLE(sector * SECTOR);
      writes.push({ id, asked: now, answered: now, zero: id === 0 });
    }
  }

  /** Sectors of a disk that were ever written. */
  sectors(disk: number): number[] {
    return [...this.#bySector[disk]!.keys()];
  }

  get count(): number {
    return this.#writes.length;
  }

  /** Null when the disks together are one past instant, else what contradicts. */
  contradiction(disks: Uint8Array[]): string | null {
    let from = { at: -Infinity, why: 'the beginning' };
    let until = { at: Infinity, why: 'the end' };
    for (const [disk, content] of disks.entries()) {
      const view = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
      for (const [sector, writes] of this.#bySector[disk]!) {
        const span = spanOf(view, sector, writes);
        const where = `disk ${disk} sector ${sector}`;
        if (typeof span === 'string') return `${where}: ${span}`;
        if (span.from > from.at) from = { at: span.from, why: `${where} = write ${span.id}` };
        if (span.until < until.at) until = { at: span.until, why: `${where} = write ${span.id}` };
        if (from.at > until.at) return `${from.why} is not older than ${from.at}, but ${until.why} not newer than ${until.at}`;
      }
    }
    return null;
  }
}

function spanOf(view: Buffer, sector: number, writes: Write[]): { id: number; from: number; until: number } | string {
  const id = view.readDoubleLE(sector * SECTOR);
  const tail = view.readDoubleLE(sector * SECTOR + SECTOR - 8);
  if (id !== tail) return `torn: begins with write ${id}, ends with ${tail}`;
  const first: Write = { id: 0, asked: -Infinity, answered: -Infinity, zero: true };
  // Zeroes may be the first state or any zeroing; take what explains the most.
  const candidates = [first, ...writes].map((write, index) => ({ write, later: writes.slice(index) }))
    .filter(({ write }) => (id === 0 ? write.zero : write.id === id));
  if (candidates.length === 0) return `holds write ${id}, which was never made`;
  const spans = candidates.map(({ write, later }) => ({
    id: write.id, from: write.asked,
    // Only what came after it: a write that is done at once is answered at the instant at which the one before it was asked.
    until: Math.min(Infinity, ...later.filter(({ asked }) => asked >= write.answered).map(({ answered }) => answered)),
  }));
  // One span that starts earliest and ends latest is enough for a check that must not raise false alarms.
  return { id, from: Math.min(...spans.map(({ from }) => from)), until: Math.max(...spans.map(({ until }) => until)) };
}
