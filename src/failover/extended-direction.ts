/**
 * The replica's part when its extended replica takes the VM over: it says yes only if nobody runs the VM, and keeps it from being run (R22).
 *
 * Invariants
 * - The yes is given after the primary has given its own, or cannot be reached: then the failover is forced, as one to the replica would be.
 * - While it is on record, no failover begins here, and every answer to the primary says so: one that comes back later keeps guests out.
 */
import { tookOverError } from '../model/direction.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { RemoteHost } from '../model/records.ts';
import { vmUnknownToPeer } from '../peer/authorisation.ts';
import type { PeerCaller } from '../peer/message.ts';
import { noteTookOver } from '../replication/peer-direction.ts';
import type { DirectionHost } from './direction-host.ts';
import { lookMessage, takeOverMessage } from './direction-messages.ts';

/** How long it waits for a primary that does not answer; the third host waits a little longer for us. */
const ASK_TIMEOUT_MS = 3000;

export class ExtendedDirection {
  #host: DirectionHost;

  constructor(host: DirectionHost) {
    this.#host = host;
  }

  /** The primary hears at once that the third host has given the VM back, instead of with its next report. */
  tellPrimaries(): void {
    const { ports } = this.#host;
    const { relationships } = this.#host.legs();
    const held = new Set<string>();
    relationships.onChange((vmId) => {
      const first = ports.relationships.find(vmId);
      if ((relationships.find(vmId)?.tookOver ?? null) !== null) held.add(vmId);
      else if (held.delete(vmId) && first !== undefined) {
        ports.link(first.remote).call(lookMessage, { vmId }).catch((error: unknown) =>
          ports.log.debug({ error: messageOf(error) }, 'the primary could not be told yet'));
      }
    });
  }

  /** The caller is the extended replica that this host feeds. */
  isPartner(caller: PeerCaller, vmId: string): boolean {
    return this.#host.legs().relationships.find(vmId)?.remote.fingerprint === caller.fingerprint;
  }

  /** Durable when it resolves. @throws REPLICA_FAILED_OVER, PRIMARY_IS_RUNNING */
  async takeOver(vmId: string): Promise<void> {
    this.#refuseFailedOver(vmId);
    const vm = this.#host.replicas.get(vmId);
    const legs = this.#host.legs();
    if (vm === undefined || legs.get(vmId) === undefined) throw vmUnknownToPeer(vmId);
    if (vm.takingOver) throw busy(vm.vm.name);
    // From before the question on: the primary must not take an answer of the meantime for a cancelled failover.
    vm.takingOver = true;
    try {
      await this.#askPrimary(vmId, vm.relationship.remote);
      this.#refuseFailedOver(vmId);
      noteTookOver(legs.ports, vmId, 'the extended replica takes over');
    } finally {
      vm.takingOver = false;
    }
    legs.leg(vmId).interrupt('the extended replica takes over');
  }

  #refuseFailedOver(vmId: string): void {
    const { hostName, relationships } = this.#host.ports;
    const { state } = relationships.get(vmId);
    if (state !== 'FailedOverWaitingCompletion' && state !== 'FailedOver') return;
    const { name } = relationships.vm(vmId);
    throw new UnderstudyError('state', 'REPLICA_FAILED_OVER', `VM '${name}' runs on the replica, host ${hostName}, since a failover`,
      `Run it there; or end that first: understudy failover cancel '${name}' on host ${hostName}`);
  }

  async #askPrimary(vmId: string, remote: RemoteHost): Promise<void> {
    const { ports } = this.#host;
    try {
      await ports.link(remote).call(takeOverMessage, { vmId }, undefined, { timeoutMs: ASK_TIMEOUT_MS });
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.kind !== 'peer') throw error;
      ports.log.warn({ vm: vmId, error: error.message }, 'the primary cannot be asked: the failover to the extended replica is forced');
    }
  }

  look(vmId: string): void {
    this.#host.legs().get(vmId)?.interrupt('the extended replica has news');
  }

  /** Before a failover here. @throws PEER_FAILED_OVER, REPLICA_BUSY */
  refuseTakenOver(vmId: string): void {
    if (this.#host.replicas.get(vmId)?.takingOver === true) throw busy(this.#host.ports.relationships.vm(vmId).name);
    const record = this.#host.legs().relationships.find(vmId);
    if ((record?.tookOver ?? null) === null) return;
    const { code, message } = tookOverError(this.#host.ports.relationships.vm(vmId).name, record!.remote.name || record!.remote.host);
    throw new UnderstudyError('state', code, message, 'Cancel the failover there first; if that host is gone for good: understudy remove NAME --extended');
  }
}

const busy = (name: string): UnderstudyError =>
  new UnderstudyError('io', 'REPLICA_BUSY', `another failover of VM '${name}' is being carried out`, 'Wait until it has ended.');
