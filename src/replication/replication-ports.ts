/** What replication needs of its host. */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { DiskRecord, RemoteHost, VmRecord } from '../model/records.ts';
import type { HostSettings } from '../model/settings.ts';
import type { PeerLink } from '../peer/link.ts';
import type { TrackingPorts } from '../tracking/tracking-ports.ts';
import type { Relationships } from './relationships.ts';

export interface ReplicationPorts extends TrackingPorts {
  relationships: Relationships;
  hostName: string;
  /** That this server may use. */
  processors: number;
  /** Where this host's own peer server listens; told to replicas for the way back. */
  peerPort(): number;
  hostSettings(): HostSettings;
  /** The link to a peer; shared by all VMs that replicate to it, never closed by its users. */
  link(remote: Pick<RemoteHost, 'host' | 'port' | 'fingerprint'>): PeerLink;
  /** For reading a disk that is not attached. */
  openDiskForReading(record: DiskRecord): Promise<VirtualDisk>;
  /** A new sparse disk of the record's format and size; fails when the file exists. */
  createDisk(record: DiskRecord): Promise<void>;
  /** Between standard recovery points; an hour unless a test says otherwise. */
  pointIntervalMs?: number;
  /**
   * Runs `cut` so that its argument is called while the guest is frozen, for at most `windowMs`; `failure`: why the instant was not at
   * rest. Absent: nobody can ask guests here.
   */
  atRest?<T>(vm: VmRecord, windowMs: number, cut: (atInstant: () => void) => Promise<T>): Promise<{ result: T; failure: string | null }>;
  /** Limits how many VMs transfer at once. */
  transferSlot(signal: AbortSignal): Promise<() => void>;
}
