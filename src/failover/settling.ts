/**
 * After `failover complete`: the served disks become plain files while the guest goes on.
 *
 * Two steps, each repeatable from its start, each ended by one record for all disks of the VM:
 *   layers → diff   what logs or undo logs hold is written into the replica disks; then points and inbox have nothing to tell any more
 *   diff   → done   what the guest wrote is moved there; then the diff disks are deleted
 * A failure (no space, say) is tried again; the guest does not notice.
 */
import { removeDiffDisk } from '../disk/diff-disk.ts';
import { messageOf } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { replicatedDisks, type FailoverRecord } from '../model/records.ts';
import type { FailoverParts, OpenedDisk, Serving } from './serving.ts';
import { settleLayers, SettlingDisk } from './settling-disk.ts';

const RETRY_MS = 30_000;

export class Settling {
  #parts: FailoverParts;
  #serving: Serving;
  #stop = new AbortController();
  #running = new Map<string, Promise<void>>();

  constructor(parts: FailoverParts, serving: Serving) {
    this.#parts = parts;
    this.#serving = serving;
  }

  /** Goes on with what is on record for this VM, if it is anything. */
  wake(vmId: string): void {
    if (this.#running.has(vmId)) return;
    this.#running.set(vmId, this.#run(vmId).finally(() => this.#running.delete(vmId)));
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    await Promise.all(this.#running.values());
  }

  async #run(vmId: string): Promise<void> {
    const { ports } = this.#parts;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const record = ports.relationships.find(vmId)?.failover ?? null;
      const opened = this.#serving.of(vmId);
      if (record === null || record.settling === null || record.settling === 'done' || opened === undefined) return this.#swept(vmId, record);
      try {
        if (record.settling === 'layers') await this.#layers(vmId, record, opened);
        else await this.#diffs(vmId, record, opened);
      } catch (error) {
        if (signal.aborted) return;
        ports.log.error({ vm: vmId, error: messageOf(error) }, 'the disks of a completed failover could not be put together; tried again');
        await ports.clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  async #layers(vmId: string, record: FailoverRecord, opened: OpenedDisk[]): Promise<void> {
    const { ports, replicas } = this.#parts;
    const vm = replicas.get(vmId)!;
    const sizes: Record<string, number> = {};
    for (const { record: disk, view, served } of opened) {
      sizes[disk.diskId] = served.virtualSize;
      if (view === null) continue;
      const base = await ports.openDisk(disk);
      try {
        if (base.virtualSize < served.virtualSize) await base.grow!(served.virtualSize);
        await settleLayers(view, base, this.#stop.signal);
      } finally {
        await base.close();
      }
    }
    await vm.forgetPoints('the failover is complete', () => {
      ports.relationships.update(vmId, {
        failover: { ...record, sizes, settling: 'diff' }, lastAppliedEpoch: record.throughEpoch, lastAppliedTime: record.time, applying: null,
      });
    });
    await vm.inbox.clear();
  }

  async #diffs(vmId: string, record: FailoverRecord, opened: OpenedDisk[]): Promise<void> {
    const { ports } = this.#parts;
    for (const disk of opened) {
      if (disk.served.current instanceof SettlingDisk) continue;
      await disk.served.changeTo(async (before) => {
        // Its diff disk must be durable before it is opened a second time.
        await before.flush();
        const next = await this.#serving.openSettling(disk.record, disk.served.virtualSize);
        await before.close();
        disk.view = null;
        return next;
      });
    }
    for (const { served } of opened) if (served.current instanceof SettlingDisk) await served.current.move(this.#stop.signal);
    await atOnce(opened, async () => {
      for (const { served } of opened) if (served.current instanceof SettlingDisk) await served.current.finish();
      ports.relationships.update(vmId, { failover: { ...record, settling: 'done' } });
      ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.failoverSettled, ports.relationships.vm(vmId).name, {
        disks: opened.map((disk) => disk.record.path) }));
    }, (disk) => this.#serving.plainDisk(disk.record, disk.served.virtualSize));
  }

  /** Diff disks that a crash has left behind their record. */
  async #swept(vmId: string, record: FailoverRecord | null): Promise<void> {
    if (record?.settling !== 'done') return;
    const { files, relationships } = this.#parts.ports;
    for (const disk of replicatedDisks(relationships.vm(vmId))) await removeDiffDisk(files, this.#serving.diffPath(disk));
  }
}

/** Keeps requests away from all disks, does the work, and lets each go on over its next disk. */
async function atOnce(opened: OpenedDisk[], work: () => Promise<void>, next: (disk: OpenedDisk) => ReturnType<Serving['plainDisk']>): Promise<void> {
  const [first, ...rest] = opened;
  if (first === undefined) return work();
  await first.served.changeTo(async (before) => {
    await atOnce(rest, work, next);
    await before.close();
    return next(first);
  });
}
