/** A guest that writes numbered, fsynced records over its disks until it is stopped or killed. */
import { Machine } from './machine.ts';

export class Writer {
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The number of the last record the guest has made durable on its disks, and said so. */
  acked(): number {
    // Only whole lines: half a number is another number.
    return Number([...this.#machine.said.matchAll(/^ACK (\d+)\n/gm)].at(-1)?.[1] ?? 0);
  }

  /** The record after which it went on: 0 on new disks. */
  get startedAt(): number {
    return Number(/^GUEST-START (\d+)$/m.exec(this.#machine.said)![1]);
  }

  /** Waits until record n is durable. Any I/O error the guest saw is an error here. */
  async untilAcked(n: number): Promise<void> {
    await this.#machine.until(() => (this.acked() >= n || this.errors().length > 0 ? true : null), `record ${n}`);
    if (this.errors().length > 0) throw new Error(`guest: ${this.errors().join('; ')}`);
  }

  errors(): string[] {
    return this.#machine.errors();
  }

  /** The power cut: kills the machine; returns the last acknowledged record. */
  async kill(): Promise<number> {
    await this.#machine.kill();
    return this.acked();
  }

  /** The orderly end: last record, unmount, power off; returns the last acknowledged record. */
  async stop(): Promise<number> {
    this.#machine.type('stop');
    const code = await this.#machine.exitCode();
    if (code !== 0 || this.errors().length > 0) throw new Error(`guest: exit ${code}: ${this.errors().join('; ')}`);
    return this.acked();
  }
}

/** Boots a guest whose disks are these NBD URIs or raw files, and resolves when its first new record is durable. */
export async function startWriter(disks: string[], { agent = null }: { agent?: string | null } = {}): Promise<Writer> {
  const machine = await Machine.boot('writer', disks.map((at) => ({ at })), disks.length, agent);
  const writer = new Writer(machine);
  try {
    const start = await machine.until(() => /^GUEST-START (\d+)$/m.exec(machine.said), 'start of the writer');
    await writer.untilAcked(Number(start[1]) + 1);
    return writer;
  } catch (error) {
    await machine.kill();
    throw error;
  }
}
