/**
 * The sets of logs that the replica does not have yet, or may ask for again.
 *
 * Invariants
 * - Oldest first. A set stays on record, and its files stay, until the replica has reported it applied.
 * - A set that the replica lacks goes again while its files are here (rung 0); else nobody can supply it (trigger 6).
 */
import { UnderstudyError } from '../model/errors.ts';
import type { EpochRecord } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import type { TrackingLoss } from '../tracking/tracked-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { ReplicaGap, shipSet } from './shipping.ts';

export class Outbox {
  readonly ports: ReplicationPorts;
  readonly vmId: string;
  #require: (loss: TrackingLoss) => void;
  /** Sent, also in attempts that failed, and not on record yet: that is with the set that is delivered next. */
  #wireBytes = 0;

  constructor(ports: ReplicationPorts, vmId: string, require: (loss: TrackingLoss) => void) {
    this.ports = ports;
    this.vmId = vmId;
    this.#require = require;
  }

  /** Sends what is undelivered. `late`: the first set to go was counted as missed before. */
  async ship(link: PeerLink, late: boolean, signal: AbortSignal): Promise<{ bytes: number; late: boolean }> {
    const { ports } = this;
    let bytes = 0;
    let damaged = -1;
    for (let set = this.undelivered()[0]; set !== undefined; set = this.undelivered()[0]) {
      const { settings, baselineId, initial, resync } = this.#relationship;
      try {
        const shipped = await shipSet(ports, link, ports.relationships.vm(this.vmId), initial?.token ?? resync?.token ?? baselineId, set,
          { compression: settings.compression, signal, onWire: (sent) => (this.#wireBytes += sent) });
        bytes += shipped.bytes;
        this.#delivered(set, shipped, late);
        late = false;
      } catch (error) {
        if (error instanceof ReplicaGap) this.resend(set.epoch, error.expected);
        else if (!(error instanceof UnderstudyError) || error.code !== 'LOG_DIGEST_MISMATCH') throw error;
        // Damaged on the way or in the inbox: it goes again from its first byte. Twice: it is our own file that has rotted.
        else if (damaged === set.epoch) this.#lose({ trigger: 6, reason: `the log of epoch ${set.epoch} is damaged: ${error.message}` });
        else damaged = set.epoch;
      }
    }
    return { bytes, late };
  }

  #delivered(set: EpochRecord, shipped: { bytes: number }, late: boolean): void {
    const { relationships, catalog, clock } = this.ports;
    catalog.transaction(() => {
      catalog.epochs.put({ ...set, status: 'received' });
      const { transferred } = this.#relationship;
      relationships.update(this.vmId, {
        lastReplicationTime: clock.now(), lastReceivedEpoch: set.epoch, error: null,
        transferred: { ...transferred, logBytes: transferred.logBytes + shipped.bytes, wireBytes: transferred.wireBytes + this.#wireBytes },
      });
      this.#wireBytes = 0;
      const latencyMs = Math.max(0, clock.now() - set.closedAt!);
      relationships.count(this.vmId, { outcome: late ? 'late' : 'success', bytes: shipped.bytes, latencyMs });
    });
  }

  /** The replica lacks an earlier set: everything from there on goes again. Throws when that is a reason for a resync. */
  resend(offered: number, expected: number): void {
    const { catalog } = this.ports;
    const sets = catalog.epochs.list(this.vmId).filter(({ status }) => status === 'received' || status === 'closed');
    if (expected > offered) {
      this.#lose({ trigger: 5, reason: `the replica expects epoch ${expected}, newer than ${offered} here: the primary was reverted` });
    }
    if (!sets.some(({ epoch }) => epoch === expected)) {
      this.#lose({ trigger: 6, reason: `the replica lacks epoch ${expected}, and its log is no longer on the primary` });
    }
    catalog.transaction(() => {
      for (const set of sets) if (set.epoch >= expected && set.status === 'received') catalog.epochs.put({ ...set, status: 'closed' });
    });
  }

  #lose(loss: TrackingLoss): never {
    this.#require(loss);
    throw new Error(loss.reason);
  }

  /** Closed and not acknowledged, oldest first. */
  undelivered(): EpochRecord[] {
    return this.ports.catalog.epochs.list(this.vmId).filter(({ status }) => status === 'closed');
  }

  /** The newest epoch that the replica has acknowledged and that is still on record; 0 when there is none. */
  newestDelivered(): number {
    return this.ports.catalog.epochs.list(this.vmId).findLast(({ status }) => status === 'received')?.epoch ?? 0;
  }

  /** The newest epoch that has ended; 0 before the first. */
  newestClosed(): number {
    const tracking = this.ports.relationships.vm(this.vmId).tracking;
    if (tracking === null) return 0;
    const open = this.ports.catalog.epochs.get(this.vmId, tracking.epoch);
    return open?.status === 'open' || open?.status === 'closing' ? tracking.epoch - 1 : tracking.epoch;
  }

  get #relationship() {
    return this.ports.relationships.get(this.vmId);
  }
}
