/** What a change of direction needs of its host. */
import type { PrimaryVm } from '../replication/primary-vm.ts';
import type { ExtendedLegs } from '../replication/extended/extended-legs.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';

export interface DirectionHost {
  ports: ReplicationPorts;
  replicas: ReplicaHost;
  /** From replicas of this host to extended replicas. */
  legs(): ExtendedLegs;
  /** Throws when the VM is no primary of this host. */
  primary(vmId: string): PrimaryVm;
  /** Open connections of guests to the disks of the VM, on whichever side it is. */
  guests(vmId: string): number;
  /** Refuses new guests of a primary until the returned function is called. */
  keepOut(vmId: string): () => void;
  /** The catalog says primary: its disks are served as such from now on. */
  becamePrimary(vmId: string): Promise<void>;
  /** Takes the primary's exports away, ends its loop and seals its disks; `becamePrimary` undoes it. */
  leavePrimary(vmId: string): Promise<void>;
  /** The catalog says replica: its logs are taken from now on. */
  becameReplica(vmId: string): Promise<void>;
}
