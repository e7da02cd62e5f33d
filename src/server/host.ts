/**
 * One host: catalog, primaries, replicas, NBD server and peer server of one data folder, put together. Deciding and doing is
 * in the
 * folders below; this file owns lifetimes.
 */
import { mkdir } from 'node:fs/promises';
import { SqliteCatalog } from '../catalog/sqlite-catalog.ts';
import { keptOut } from '../model/direction.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { VmRecord } from '../model/records.ts';
import { hostSettingsSchema, type HostSettings } from '../model/settings.ts';
import type { NbdExport } from '../nbd/export.ts';
import { NbdServer, nbdUri } from '../nbd/server.ts';
import { PeerDispatcher } from '../peer/dispatcher.ts';
import { entryFor, partnerEntry, type PeerEntry } from '../peer/authorisation.ts';
import { greet, handleHello } from '../peer/hello.ts';
import { openIdentity, type HostIdentity } from '../peer/identity.ts';
import type { PeerCaller } from '../peer/message.ts';
import { PeerServer } from '../peer/server.ts';
import { PrimaryVm } from '../replication/primary-vm.ts';
import { ExtendedLegs } from '../replication/extended/extended-legs.ts';
import { Relationships } from '../replication/relationships.ts';
import { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import type { DirectionHost } from '../failover/direction-host.ts';
import { PrimaryDirection } from '../failover/primary-direction.ts';
import { ReplicaDirection } from '../failover/replica-direction.ts';
import { ReplicaFailover } from '../failover/replica-failover.ts';
import { turnSettling } from '../failover/turn-settling.ts';
import { PrimaryResync } from '../resync/primary-resync.ts';
import { ReplicaResync } from '../resync/replica-resync.ts';
import { ResyncQueue } from '../resync/resync-queue.ts';
import { holdDataFolder, type DataLease } from './data-lease.ts';
import { readMachine, type HostParts, type Machine } from './host-parts.ts';
import type { DomainDefinitions } from '../failover/domain-definitions.ts';
import type { GuestControl } from '../failover/guest-control.ts';
import { GuestLatency } from './guest-latency.ts';
import type { GuestRest } from '../failover/guest-agent/guest-rest.ts';
import { domainDefinitionsOf, guestControlOf, guestRestOf } from './guests.ts';
import { LinkPool } from './link-pool.ts';
import { checkNbdOverTcp, nbdTls, reachableAs, type NbdOverTcp } from './nbd-over-tcp.ts';
import { Slots } from './slots.ts';
import { exportName, trackedExport } from './tracked-export.ts';
import type { VerifyProgress } from '../resync/verify.ts';
import { VerifySchedule } from './verify-schedule.ts';

export interface HostOptions {
  dataFolder: string;
  name: string | null;
  peer: { host: string; port: number };
  /** Without it disks are served on the Unix socket alone. */
  nbd?: NbdOverTcp;
}

export class Host {
  readonly name: string;
  readonly dataFolder: string;
  readonly parts: HostParts;
  readonly machine: Machine;
  readonly identity: HostIdentity;
  readonly catalog: SqliteCatalog;
  readonly relationships: Relationships;
  readonly ports: ReplicationPorts;
  readonly replicas: ReplicaHost;
  readonly nbd: NbdServer;
  readonly peer: PeerServer;
  readonly primaries = new Map<string, PrimaryVm>();
  readonly resync: PrimaryResync;
  readonly replicaResync: ReplicaResync;
  readonly failover: ReplicaFailover;
  readonly extended: ExtendedLegs;
  #verifySchedule = new VerifySchedule(this);
  /** How far verifies are that run now, by VM. */
  readonly verifies = new Map<string, VerifyProgress>();
  readonly primaryDirection: PrimaryDirection;
  readonly replicaDirection: ReplicaDirection;
  readonly guestLatency: GuestLatency;
  readonly guestControl: GuestControl;
  readonly definitions: DomainDefinitions;
  readonly #guestRest: GuestRest;
  #lease: DataLease;
  #links: LinkPool;
  #exports = new Map<string, NbdExport & { size: number }>();
  #clients = new Map<string, Set<number>>();
  #failures = new Map<string, UnderstudyError>();
  /** Primaries that let no new guest in, for a moment. */
  #keptOut = new Set<string>();

  private constructor(built: {
    options: HostOptions; parts: HostParts; machine: Machine; identity: HostIdentity; catalog: SqliteCatalog; lease: DataLease; name: string;
  }) {
    const { parts, options, catalog, machine, identity } = built;
    const { clock, log } = parts;
    this.parts = parts;
    this.machine = machine;
    this.identity = identity;
    this.catalog = catalog;
    this.name = built.name;
    this.dataFolder = options.dataFolder;
    this.#lease = built.lease;
    this.guestLatency = new GuestLatency(clock);
    this.relationships = new Relationships({ catalog, clock, zone: parts.zone, hostSettings: () => this.settings() });
    const transfers = new Slots(() => this.settings().transferConcurrency);
    this.#links = new LinkPool(identity, clock, (link) => greet(link, { hostName: built.name, bootId: machine.bootId }, clock));
    this.ports = {
      ...parts, ...machine, catalog, relationships: this.relationships, hostName: this.name, dataFolder: options.dataFolder,
      hostSettings: () => this.settings(), peerPort: () => this.peer.address.port,
      link: (remote) => this.#links.get(remote), transferSlot: (signal) => transfers.take(signal),
      atRest: (vm, windowMs, cut) => this.#guestRest.cut(vm, windowMs, cut),
    };
    this.replicas = new ReplicaHost(this.ports, parts.zone);
    this.replicaResync = new ReplicaResync(this.ports, this.replicas);
    this.failover = new ReplicaFailover({
      ports: this.ports, replicas: this.replicas, exportName: (name, index) => exportName({ name }, index),
      openForReading: (vm, disk) => this.replicaResync.openForReading(vm, disk),
      cancelResync: (vm) => this.replicaResync.cancel(vm, null),
      stopTestGuest: (vmId) => this.guestControl.endTest(vmId),
      exports: {
        add: (name, served) => void this.#exports.set(name, this.#counted(name, served)),
        remove: async (name) => {
          this.#exports.delete(name);
          await this.nbd.disconnect(name);
        },
      },
    });
    this.guestControl = guestControlOf(this);
    this.definitions = domainDefinitionsOf(this);
    this.#guestRest = guestRestOf(this);
    this.resync = new PrimaryResync(new ResyncQueue(() => this.settings().resyncConcurrency), parts.zone);
    this.extended = new ExtendedLegs(this.ports, this.replicas, parts.zone, this.resync);
    const dispatcher = new PeerDispatcher({
      log, authenticate: (caller) => entryFor(catalog.authorizations.list(), caller) ?? this.#partner(caller),
    });
    handleHello(dispatcher, { hostName: this.name, bootId: machine.bootId }, clock);
    this.replicas.serve(dispatcher);
    this.replicaResync.serve(dispatcher);
    const directionHost = this.#directionHost();
    this.primaryDirection = new PrimaryDirection(directionHost);
    this.primaryDirection.serve(dispatcher);
    this.replicaDirection = new ReplicaDirection(directionHost, this.failover);
    this.replicaDirection.serve(dispatcher);
    this.definitions.serve(dispatcher);
    this.nbd = new NbdServer({ exports: (name) => this.#exports.get(name), list: () => [...this.#exports.keys()], clock, log });
    this.peer = new PeerServer({
      identity, dispatcher, log, clock,
      onRefused: ({ fingerprint, address, reason }) => {
        try {
          this.relationships.note(null, makeEvent(ACTIVITY_EVENTS.peerRefused, null, { fingerprint: fingerprint ?? 'none', address, reason }));
        } catch (error) {
          // Whoever knocks must not be able to end a server whose catalog cannot be written.
          log.warn({ address, reason, error: messageOf(error) }, 'a refused peer cannot be put on record');
        }
      },
    });
  }

  /** Opens the data folder, takes up everything a stop or a crash has left, and serves. */
  static async start(parts: HostParts, options: HostOptions): Promise<Host> {
    const { dataFolder } = options;
    if (options.nbd !== undefined) checkNbdOverTcp(options.nbd);
    await makeDataFolder(dataFolder);
    const machine = await readMachine(parts);
    const name = options.name ?? machine.hostName;
    const lease = await holdDataFolder(dataFolder, { hostId: machine.hostId, hostName: name, bootId: machine.bootId }, parts.clock);
    let catalog: SqliteCatalog | null = null;
    try {
      const identity = await openIdentity(`${dataFolder}/identity`, name, parts.random);
      catalog = SqliteCatalog.open(`${dataFolder}/catalog.db`);
      const host = new Host({ options, parts, machine, identity, catalog, lease, name });
      await host.#begin(options);
      return host;
    } catch (error) {
      catalog?.close();
      await lease.release();
      throw error;
    }
  }

  settings(): HostSettings {
    return hostSettingsSchema.parse(this.catalog.value('settings') ?? {});
  }

  /** Seals the disks and ends; guests see their connections close. */
  async close(): Promise<void> {
    await this.#verifySchedule.close();
    await this.guestControl.close();
    await this.definitions.close();
    await this.nbd.close();
    await Promise.all([...this.primaries.values()].map((primary) => primary.close()));
    this.#guestRest.close();
    await this.peer.close();
    await this.failover.close();
    await this.replicaResync.close();
    await this.replicas.close();
    // After the last set was applied: every one must be in its queue.
    await this.extended.close();
    await this.#links.close();
    this.catalog.close();
    await this.#lease.release();
  }

  vm(name: string): VmRecord {
    const vm = this.catalog.vmByName(name);
    if (vm !== undefined) return vm;
    throw new UnderstudyError('usage', 'VM_NOT_FOUND', `there is no VM '${name}' on host ${this.name}`, 'See: understudy vm list');
  }

  primary(vmId: string): PrimaryVm {
    const primary = this.primaries.get(vmId);
    if (primary === undefined) throw new Error(`VM ${vmId} is no primary of this host`);
    return primary;
  }

  /** What kept the disks of a VM from being opened when the server started; shown in its status. */
  failureOf(vmId: string): UnderstudyError | undefined {
    return this.#failures.get(vmId);
  }

  /** Makes a VM's disks reachable for guests. They are opened when the first guest comes, or at once by `attach`. */
  adopt(vm: VmRecord): PrimaryVm {
    const primary = new PrimaryVm(this.ports, vm.vmId, this.resync, turnSettling);
    this.primaries.set(vm.vmId, primary);
    vm.disks.forEach((disk, index) => {
      const name = exportName(vm, index);
      this.#exports.set(name, this.guestLatency.timed(vm.vmId, trackedExport(name, disk, {
        now: () => primary.guestDisks?.disk(disk.diskId) ?? null,
        disk: async () => (await this.#openForGuest(vm.vmId)).disk(disk.diskId),
        connected: (client) => this.#guestCame(vm.vmId, client.id),
        gone: (client) => void this.#clients.get(vm.vmId)?.delete(client.id),
      })));
    });
    return primary;
  }

  /** Takes the exports of a VM away, after its guests' last requests have ended. */
  async abandon(vm: VmRecord): Promise<void> {
    await this.closeExports(vm);
    for (const index of vm.disks.keys()) this.#exports.delete(exportName(vm, index));
    await this.primaries.get(vm.vmId)?.close();
    this.primaries.delete(vm.vmId);
  }

  async closeExports(vm: VmRecord): Promise<void> {
    for (const index of vm.disks.keys()) await this.nbd.disconnect(exportName(vm, index));
  }

  /** Disks may have grown: a guest sees it when it connects again, and may write there at once. */
  sizesChanged(vmId: string): void {
    const vm = this.relationships.vm(vmId);
    for (const [index, { virtualSize }] of vm.disks.entries()) {
      const served = this.#exports.get(exportName(vm, index));
      if (served !== undefined) served.size = virtualSize;
    }
  }

  /** Open connections to the disks of a VM, also to those of one that has failed over to here. */
  guests(vmId: string): number {
    const vm = this.relationships.vm(vmId);
    const failedOver = vm.disks.reduce((sum, _, index) => sum + (this.#clients.get(exportName(vm, index))?.size ?? 0), 0);
    return failedOver + (this.#clients.get(vmId)?.size ?? 0);
  }

  #counted(name: string, served: NbdExport): NbdExport {
    const clients = new Set<number>();
    this.#clients.set(name, clients);
    return {
      ...served,
      clientConnected: (client) => {
        served.clientConnected(client);
        clients.add(client.id);
      },
      clientGone: (client) => {
        clients.delete(client.id);
        served.clientGone(client);
      },
    };
  }

  #partner(caller: PeerCaller): PeerEntry | null {
    const { relationships, extended } = this.catalog;
    return partnerEntry([...relationships.list(), ...extended.relationships.list()], caller);
  }

  #directionHost(): DirectionHost {
    return {
      ports: this.ports, replicas: this.replicas, legs: () => this.extended, primary: (vmId) => this.primary(vmId), guests: (vmId) => this.guests(vmId),
      keepOut: (vmId) => {
        this.#keptOut.add(vmId);
        return () => void this.#keptOut.delete(vmId);
      },
      becamePrimary: async (vmId) => {
        await this.replicas.release(vmId);
        await this.adopt(this.relationships.vm(vmId)).start();
      },
      leavePrimary: (vmId) => this.abandon(this.relationships.vm(vmId)),
      becameReplica: (vmId) => this.replicas.adopt(vmId),
    };
  }

  uri(vm: VmRecord, index: number): string {
    return this.exportUri(exportName(vm, index));
  }

  exportUri(name: string): string {
    return nbdUri(this.nbd.address()[0]!, name);
  }

  /** Null when NBD is not served over TCP. */
  tcpUri(vm: VmRecord, index: number): string | null {
    const address = this.nbd.address().find(({ kind }) => kind === 'tcp');
    if (address?.kind !== 'tcp') return null;
    return nbdUri({ ...address, host: reachableAs(address.host, this.name) }, exportName(vm, index));
  }

  async #begin(options: HostOptions): Promise<void> {
    this.guestControl.recover();
    this.#guestRest.start();
    await this.replicas.start();
    await this.replicaResync.start();
    await this.failover.start();
    // Before the primaries: they tell their replicas where this host listens.
    await this.peer.listen(options.peer.host, options.peer.port);
    this.extended.start();
    for (const vm of this.catalog.vms.list()) {
      if (vm.side !== 'primary') continue;
      const primary = this.adopt(vm);
      try {
        await primary.start();
        this.sizesChanged(vm.vmId);
      } catch (error) {
        if (!(error instanceof UnderstudyError)) throw error;
        // One VM whose disk is missing or in use must not keep the others from being protected.
        this.#failures.set(vm.vmId, error);
        this.parts.log.error({ vm: vm.name, code: error.code, error: error.message }, 'could not open the disks of a VM');
        primary.run();
      }
    }
    await this.nbd.listenUnix(`${this.dataFolder}/nbd.sock`);
    if (options.nbd !== undefined) await this.nbd.listenTcp(options.nbd.host, options.nbd.port, nbdTls(options.nbd, this.identity));
    this.#verifySchedule.start();
    this.definitions.start();
  }

  #guestCame(vmId: string, client: number): void {
    this.#refuseStopped(vmId);
    this.#refuseKeptOut(vmId);
    const clients = this.#clients.get(vmId) ?? new Set();
    this.#clients.set(vmId, clients.add(client));
  }

  #refuseStopped(vmId: string): void {
    const { attach, name } = this.relationships.vm(vmId);
    if (attach !== 'stopped') return;
    throw new UnderstudyError('state', 'VM_STOPPED', `VM '${name}' is stopped`, `Attach it first: understudy vm attach '${name}'`);
  }

  #refuseKeptOut(vmId: string): void {
    const { name } = this.relationships.vm(vmId);
    const refusal = keptOut(name, this.relationships.find(vmId));
    if (refusal !== null) throw refusal;
    if (!this.#keptOut.has(vmId)) return;
    throw new UnderstudyError('state', 'VM_LOCKED', `a planned failover of VM '${name}' is being prepared`, 'Wait until it has ended.');
  }

  async #openForGuest(vmId: string) {
    // A request of a connection that is being closed must not open them again.
    this.#refuseStopped(vmId);
    const vm = this.relationships.vm(vmId);
    if (vm.attach === 'on-demand') this.catalog.transaction(() => this.catalog.vms.put({ ...vm, attach: 'attached' }));
    const tracked = await this.primary(vmId).hold('guest');
    this.sizesChanged(vmId);
    this.#failures.delete(vmId);
    return tracked;
  }
}

async function makeDataFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new UnderstudyError('io', 'DATA_FOLDER_UNUSABLE', `the data folder ${folder} cannot be made`,
      'Name another one with --data DIR, or make it with the right owner.', { cause });
  }
}
