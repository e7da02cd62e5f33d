/**
 * How much of disk and link a resync may take: a ceiling the user sets, and may change at any time, and yielding by itself while the
 * guest is at work.
 */
import type { Clock } from '../model/ports.ts';
import type { ResyncShare } from '../model/settings.ts';
import type { SourceDisk } from '../replication/change-source.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { PacedLine } from './compare/paced-line.ts';

const MIB = 1 << 20;
/**
 * While the guest is at work, reading pauses so long for each MiB; at rest it takes everything. Where there are two processors, or one core
 * that plays two, each job that runs is one that a request waits for or shares with: there it pauses for twice as long.
 */
const yieldMsPerMiB = (processors: number): number => (processors > 2 ? 4 : 8);
/**
 * It is at work for so long after a request: most take a fraction of a millisecond, so that even a guest of a thousand a second is rarely
 * found with one under way.
 */
const AT_WORK_MS = 50;

/** What tells whether the guest is at work. */
export type GuestWork = Pick<SourceDisk, 'requests' | 'openOperations'>;

export class Pacer {
  #clock: Clock;
  /** A pause for each MiB, ms. */
  #yieldMs: number;
  #share: () => ResyncShare;
  #guest: GuestWork;
  #guestRequests: number;
  #guestWorkedAt = -Infinity;
  #disk: PacedLine;
  #link: PacedLine;

  constructor({ clock, processors }: Pick<ReplicationPorts, 'clock' | 'processors'>, share: () => ResyncShare, guest: GuestWork, signal: AbortSignal) {
    this.#clock = clock;
    this.#yieldMs = yieldMsPerMiB(processors);
    this.#share = share;
    this.#guest = guest;
    this.#guestRequests = guest.requests;
    this.#disk = new PacedLine(clock, () => share().diskBytesPerSec, signal);
    this.#link = new PacedLine(clock, () => share().linkBytesPerSec, signal);
  }

  get isGuestAtWork(): boolean {
    const { requests, openOperations } = this.#guest;
    const now = this.#clock.monotonic();
    if (openOperations > 0 || requests !== this.#guestRequests) this.#guestWorkedAt = now;
    this.#guestRequests = requests;
    return now - this.#guestWorkedAt < AT_WORK_MS;
  }

  /** Bytes a second that may be read now; null: all that the disk gives. */
  get readRate(): number | null {
    const { diskBytesPerSec } = this.#share();
    if (!this.isGuestAtWork) return diskBytesPerSec;
    const yielding = (MIB / this.#yieldMs) * 1000;
    return Math.min(diskBytesPerSec ?? yielding, yielding);
  }

  /** Awaited before so many bytes are read. */
  read(bytes: number): Promise<void> | void {
    return this.#disk.pass(bytes, this.isGuestAtWork ? (bytes / MIB) * this.#yieldMs : 0);
  }

  /** Awaited before so many bytes are sent. */
  sent(bytes: number): Promise<void> | void {
    return this.#link.pass(bytes);
  }
}
