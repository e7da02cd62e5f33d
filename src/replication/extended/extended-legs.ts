/**
 * All legs to extended replicas of this host, and what they are told of their replicas.
 *
 * Invariant: whatever befalls a leg, its replica goes on receiving and applying: what the leg then lacks is on record as required.
 */
import { messageOf, UnderstudyError } from '../../model/errors.ts';
import { makeEvent, ACTIVITY_EVENTS } from '../../model/events.ts';
import type { BaseWatch } from '../base-watch.ts';
import { Relationships } from '../relationships.ts';
import { requiredAfter } from '../required-resync.ts';
import type { ReplicaHost } from '../replica-host.ts';
import type { ReplicaVm } from '../replica-vm.ts';
import type { ReplicationPorts } from '../replication-ports.ts';
import type { ResyncDriver } from '../sending-vm.ts';
import { ExtendedLeg } from './extended-leg.ts';
import { legCatalog, legDataFolder } from './leg-catalog.ts';

export class ExtendedLegs {
  /** As a leg sees its host: the same VMs, with the leg's records. */
  readonly ports: ReplicationPorts;
  readonly relationships: Relationships;
  #resync: ResyncDriver | null;
  #replicas: ReplicaHost;
  /** The relationship of which the VM is the replica here. */
  #first: Relationships['find'];
  #legs = new Map<string, ExtendedLeg>();

  constructor(ports: ReplicationPorts, replicas: ReplicaHost, zone: string, resync: ResyncDriver | null) {
    const dataFolder = legDataFolder(ports.dataFolder);
    const catalog = legCatalog(ports.catalog, dataFolder);
    this.relationships = new Relationships({ catalog, clock: ports.clock, zone, hostSettings: () => ports.hostSettings() });
    this.ports = { ...ports, catalog, dataFolder, relationships: this.relationships };
    this.#resync = resync;
    this.#replicas = replicas;
    this.#first = (vmId) => ports.relationships.find(vmId);
    replicas.adopted = (vm) => this.#adopt(vm);
    // What a leg waits for is a change of its replica.
    ports.relationships.onChange((vmId) => {
      const [leg, record] = [this.#legs.get(vmId), this.relationships.find(vmId)];
      if (leg === undefined || record === undefined) return;
      if (record.state !== 'Replicating') leg.wake();
      this.#keepSlower(vmId);
    });
  }

  /** Begins to send; what is applied is remembered from when the replicas were adopted. */
  start(): void {
    for (const leg of this.#legs.values()) leg.run();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#legs.values()].map((leg) => leg.close()));
    this.#legs.clear();
  }

  get(vmId: string): ExtendedLeg | undefined {
    return this.#legs.get(vmId);
  }

  /** The leg on record of a VM that is a replica here. */
  leg(vmId: string): ExtendedLeg {
    const leg = this.#legs.get(vmId);
    if (leg !== undefined) return leg;
    const { name } = this.relationships.vm(vmId);
    throw new UnderstudyError('state', 'NOT_EXTENDED', `VM '${name}' has no extended replica`,
      `On its replica host: understudy extend '${name}' --replica HOST:PORT --fingerprint F`);
  }

  /** For a leg that has just been put on record. */
  async add(vmId: string): Promise<ExtendedLeg> {
    await this.#adopt(this.#replicas.get(vmId)!);
    const leg = this.#legs.get(vmId)!;
    leg.run();
    return leg;
  }

  async remove(vmId: string): Promise<void> {
    const leg = this.leg(vmId);
    await leg.endReplication();
    this.#legs.delete(vmId);
    await leg.close();
  }

  async #adopt(vm: ReplicaVm): Promise<void> {
    const { vmId } = vm;
    vm.watch = this.#watchOf(vmId);
    if (this.relationships.find(vmId) === undefined) return;
    const leg = new ExtendedLeg(this.ports, vm, this.#resync);
    this.#legs.set(vmId, leg);
    try {
      await leg.hold('leg');
    } catch (error) {
      this.#broken(vmId, `its queue cannot be opened: ${messageOf(error)}`);
    }
  }

  /** The leg can no longer tell what it lacks: it goes on by a full compare, whatever became of its files. */
  #broken(vmId: string, reason: string): void {
    this.ports.log.error({ vm: vmId, reason }, 'the leg to an extended replica is broken');
    const { catalog } = this.ports;
    const vm = this.relationships.vm(vmId);
    catalog.transaction(() => {
      if (vm.tracking !== null) catalog.vms.put({ ...vm, tracking: { ...vm.tracking, mode: 'map-only', mapTrusted: false } });
      const leg = this.#legs.get(vmId);
      if (leg !== undefined) return leg.require({ trigger: 1, reason });
      const required = requiredAfter(this.relationships.get(vmId).required, { trigger: 1, reason }, false, this.ports.clock.now());
      this.relationships.happened(vmId, { kind: 'resync-required', trigger: 1, reason }, { required, mapTrusted: false });
    });
  }

  #watchOf(vmId: string): BaseWatch {
    const source = () => this.#legs.get(vmId)?.tracked ?? null;
    return {
      beforeSet: async (set) => source()?.beforeSet(set),
      tookOver: () => (this.relationships.find(vmId)?.tookOver ?? null) !== null,
      beforeChange: async (ranges) => source()?.beforeChange(ranges),
      applied: (set) => {
        if (source() === null) this.#mustRemember(vmId);
        const move = source()?.applied(set) ?? null;
        if (move === null) return null;
        return () => move().catch((error: unknown) => this.#legs.get(vmId)?.require({ trigger: 3, reason: `a log could not be queued: ${messageOf(error)}` }));
      },
      makeRoom: async (reason) => {
        const open = source();
        if (open === null || !open.logging || !open.hasWrites) return false;
        this.#legs.get(vmId)?.require({ trigger: 2, reason: `the replica needs the space that its queue takes: ${reason}` });
        await open.removed();
        return true;
      },
      changed: (reason, { known }) => {
        const leg = this.#legs.get(vmId);
        // Before its first baseline there is nothing that could differ from it.
        if (leg === undefined || this.relationships.vm(vmId).tracking === null) return;
        leg.require(known ? { trigger: 6, reason, mapKnows: true } : { trigger: 1, reason });
      },
    };
  }

  /** A set is applied that nobody has queued or marked. */
  #mustRemember(vmId: string): void {
    if (this.relationships.find(vmId) === undefined || this.relationships.vm(vmId).tracking?.mapTrusted !== true) return;
    this.#broken(vmId, 'a set of logs was applied while its queue was closed');
  }

  /** A leg is never faster than the one that feeds it: the primary may have chosen another frequency. */
  #keepSlower(vmId: string): void {
    const first = this.#first(vmId)?.settings.frequencySec ?? 30;
    const { settings } = this.relationships.get(vmId);
    if (settings.frequencySec >= first) return;
    this.relationships.update(vmId, { settings: { ...settings, frequencySec: first } });
    this.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.settingsChanged, this.relationships.vm(vmId).name,
      { changes: { frequencySec: first, because: 'the primary sends no more often' } }));
    this.#legs.get(vmId)?.settingsChanged();
  }
}
