/** One host of the simulation: the real tracking, replication and catalog code over simulated files, clock and link. */
import { createHash } from 'node:crypto';
import { SqliteCatalog } from '../../src/catalog/sqlite-catalog.ts';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { Compute, Logger } from '../../src/model/ports.ts';
import { hostSettingsSchema } from '../../src/model/settings.ts';
import { keptOut } from '../../src/model/direction.ts';
import { entryFor, partnerEntry } from '../../src/peer/authorisation.ts';
import type { DirectionHost } from '../../src/failover/direction-host.ts';
import { PrimaryDirection } from '../../src/failover/primary-direction.ts';
import { ReplicaDirection } from '../../src/failover/replica-direction.ts';
import { turnSettling } from '../../src/failover/turn-settling.ts';
import { PeerDispatcher } from '../../src/peer/dispatcher.ts';
import type { PeerLink } from '../../src/peer/link.ts';
import { PrimaryVm } from '../../src/replication/primary-vm.ts';
import { Relationships } from '../../src/replication/relationships.ts';
import { ExtendedLegs } from '../../src/replication/extended/extended-legs.ts';
import { ReplicaHost } from '../../src/replication/replica-host.ts';
import { PrimaryResync } from '../../src/resync/primary-resync.ts';
import { ReplicaFailover } from '../../src/failover/replica-failover.ts';
import type { NbdExport } from '../../src/nbd/export.ts';
import { ReplicaResync } from '../../src/resync/replica-resync.ts';
import { ResyncQueue } from '../../src/resync/resync-queue.ts';
import type { ReplicationPorts } from '../../src/replication/replication-ports.ts';
import type { Scheduler, Life } from './scheduler.ts';
import { faultyCatalog } from './faulty-catalog.ts';
import { createSimDisk, openSimDisk } from './sim-disk.ts';
import { SimVolume, type CacheLoss } from './sim-files.ts';

/** Not BLAKE3, but as collision-free as the simulation needs, and without native code. */
const sha = (data: Uint8Array) => createHash('sha256').update(data).digest();

export const compute: Compute = {
  compress: async () => null,
  decompress: async (data) => data,
  digest: sha,
  digester: () => {
    const hash = createHash('sha256');
    return { update: (data) => void hash.update(data), digest: () => hash.digest() };
  },
};

export const REGION_BYTES = 32 * 1024;
/** One leaf of the compare: a cursor for each, so that a disk of 2 MiB has several. */
export const CHECKPOINT_BYTES = { compared: 256 * 1024, mended: 64 * 1024 };

export class SimHost {
  readonly name: string;
  readonly fingerprint: string;
  readonly volume: SimVolume;
  readonly catalog: SqliteCatalog;
  life: Life = { alive: false };
  /** Why no transaction of the catalog can be committed. */
  catalogFault: Error | null = null;
  dispatcher: PeerDispatcher | null = null;
  relationships!: Relationships;
  replicas: ReplicaHost | null = null;
  extended: ExtendedLegs | null = null;
  replicaResync: ReplicaResync | null = null;
  failover: ReplicaFailover | null = null;
  /** What guests could connect to, by name, but for the primaries' own disks. */
  readonly exports = new Map<string, NbdExport>();
  /** Between recovery points. */
  pointIntervalMs = 3_600_000;
  /** For which a verify holds apply back at most. */
  verifyHoldMs = 1_800_000;
  resync!: PrimaryResync;
  primaryDirection!: PrimaryDirection;
  replicaDirection!: ReplicaDirection;
  /** Guests that are connected to this host; whoever plays them says so. */
  guestCount = 0;
  /** Called after every committed change. */
  onChange: () => void = () => undefined;
  #keptOut = new Set<string>();
  primaries = new Map<string, PrimaryVm>();
  ports!: ReplicationPorts;
  #scheduler: Scheduler;
  #boot = 1;
  #linkTo: (near: SimHost, fingerprint: string) => PeerLink;
  messages: string[] = [];

  constructor(
    name: string, scheduler: Scheduler, linkTo: (near: SimHost, fingerprint: string) => PeerLink,
    { catalog = SqliteCatalog.open(':memory:'), volume = new SimVolume(scheduler) } = {},
  ) {
    this.catalog = catalog;
    this.volume = volume;
    this.name = name;
    this.fingerprint = `${name}-fingerprint`;
    this.#scheduler = scheduler;
    this.#linkTo = linkTo;
  }

  /** Starts the server process; resolves when it serves. */
  async start(): Promise<void> {
    this.life = { alive: true };
    const { life } = this;
    const catalog = faultyCatalog(this.catalog, () => this.catalogFault);
    const clock = this.#scheduler.clock(life);
    const files = this.volume.mount(life);
    const settings = hostSettingsSchema.parse({});
    this.relationships = new Relationships({ catalog, clock, zone: 'UTC', hostSettings: () => settings });
    const note = (level: string) => (fields: object, message: string) =>
      void this.messages.push(`${level} ${message} ${JSON.stringify(fields)}`);
    const log: Logger = { debug: () => {}, info: note('info'), warn: note('warn'), error: note('error') };
    this.ports = {
      files, clock, compute, catalog, log, relationships: this.relationships, hostName: this.name, processors: 4, peerPort: () => 1, hostSettings: () => settings,
      random: { uuid: () => this.#scheduler.dice.uuid(), bytes: (count) => this.#scheduler.dice.bytes(count) },
      bootId: `${this.name}-boot-${this.#boot}`, hostId: this.name, dataFolder: `/${this.name}`,
      pointIntervalMs: this.pointIntervalMs,
      changeMap: { regionBytes: REGION_BYTES, hotRegionsMax: 2 },
      link: ({ fingerprint }) => this.#linkTo(this, fingerprint),
      openDisk: (record) => openSimDisk(this.volume, files, record, 'write', this.ports.random),
      openDiskForReading: (record) => openSimDisk(this.volume, files, record, 'read', this.ports.random),
      createDisk: (record) => createSimDisk(files, record, record.virtualSize, this.ports),
      transferSlot: async () => () => {},
    };
    this.relationships.onChange(() => this.onChange());
    this.#keptOut.clear();
    this.guestCount = 0;
    this.dispatcher = new PeerDispatcher({
      log, authenticate: (caller) => entryFor(catalog.authorizations.list(), caller) ??
        partnerEntry([...catalog.relationships.list(), ...catalog.extended.relationships.list()], caller),
    });
    this.replicas = new ReplicaHost(this.ports, 'UTC');
    this.replicas.serve(this.dispatcher);
    this.replicaResync = new ReplicaResync(this.ports, this.replicas, { holdMs: this.verifyHoldMs });
    this.replicaResync.serve(this.dispatcher);
    this.failover = this.#makeFailover(this.replicas, this.replicaResync);
    this.resync = new PrimaryResync(new ResyncQueue(() => 1), 'UTC', { checkpointBytes: CHECKPOINT_BYTES });
    this.extended = new ExtendedLegs(this.ports, this.replicas, 'UTC', this.resync);
    const direction = this.#directionHost(this.replicas);
    this.primaryDirection = new PrimaryDirection(direction);
    this.primaryDirection.serve(this.dispatcher);
    this.replicaDirection = new ReplicaDirection(direction, this.failover);
    this.replicaDirection.serve(this.dispatcher);
    await this.replicas.start();
    await this.replicaResync.start();
    if (life.alive) this.extended.start();
    if (life.alive) await this.failover.start();
    this.primaries.clear();
    for (const { vmId, side } of catalog.vms.list()) {
      if (side !== 'primary' || !life.alive) continue;
      await this.#startPrimary(vmId);
    }
  }

  async #startPrimary(vmId: string): Promise<void> {
    const primary = new PrimaryVm(this.ports, vmId, this.resync, turnSettling);
    this.primaries.set(vmId, primary);
    await primary.start();
  }

  /** Whether a guest that comes now gets in: as primary, or as one that has failed over to here. */
  letsIn(vmId: string): boolean {
    const { side, attach, name } = this.relationships.vm(vmId);
    if (side === 'replica') return this.exports.has(`${name}/0`);
    return attach !== 'stopped' && this.primaries.has(vmId) && !this.#keptOut.has(vmId) && keptOut(name, this.relationships.find(vmId)) === null;
  }

  #directionHost(replicas: ReplicaHost): DirectionHost {
    return {
      ports: this.ports, replicas, legs: () => this.extended!, guests: () => this.guestCount,
      primary: (vmId) => this.primaries.get(vmId)!,
      keepOut: (vmId) => {
        this.#keptOut.add(vmId);
        return () => void this.#keptOut.delete(vmId);
      },
      becamePrimary: async (vmId) => {
        await replicas.release(vmId);
        await this.#startPrimary(vmId);
      },
      leavePrimary: async (vmId) => {
        const primary = this.primaries.get(vmId);
        await primary?.close();
        this.primaries.delete(vmId);
      },
      becameReplica: (vmId) => replicas.adopt(vmId),
    };
  }

  #makeFailover(replicas: ReplicaHost, resync: ReplicaResync): ReplicaFailover {
    const { life } = this;
    return new ReplicaFailover({
      ports: this.ports, replicas, exportName: (name, index) => `${name}/${index}`,
      openForReading: (vm, disk) => resync.openForReading(vm, disk), cancelResync: (vm) => resync.cancel(vm, null),
      exports: {
        add: (name, served) => {
          if (life.alive) this.exports.set(name, served);
        },
        remove: async (name) => {
          if (life.alive) this.exports.delete(name);
        },
      },
    });
  }

  /** This host as a crash at this instant would find it, in a world of its own where nobody else can be reached. */
  copy(scheduler: Scheduler): SimHost {
    const catalog = SqliteCatalog.open(':memory:');
    for (const table of ['vms', 'relationships', 'epochs', 'inbox', 'points', 'authorizations'] as const) {
      for (const row of this.catalog[table].list()) (catalog[table].put as (row: unknown) => void)(row);
    }
    const unreachable = () => Promise.reject(new UnderstudyError('peer', 'PEER_UNREACHABLE', 'nobody is there', 'Wait.'));
    const copy = new SimHost(this.name, scheduler, () => ({ call: unreachable, stream: unreachable, close: async () => undefined }),
      { catalog, volume: this.volume.copy(scheduler) });
    copy.#boot = this.#boot;
    return copy;
  }

  /** `process`: the page cache lives on. `machine`: what was not synced is lost, and the boot id changes. */
  crash(kind: 'process' | 'machine', kept: CacheLoss | null = null): void {
    this.life.alive = false;
    this.dispatcher = null;
    this.replicas = null;
    this.extended = null;
    this.failover = null;
    this.exports.clear();
    this.primaries.clear();
    if (kind === 'process') return;
    this.#boot++;
    this.volume.loseCache(kept);
  }
}
