/** Everything a host can be asked, from its parts. */
import type { HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { consoleOperations, type ConsoleFacts } from './console-operations.ts';
import { failoverOperations } from './failover-operations.ts';
import { guestOperations } from './guest-operations.ts';
import { importOperation } from './import-operation.ts';
import { monitoringOperations } from './monitoring-operations.ts';
import { pairingOperations } from './pairing-operations.ts';
import { replicationOperations } from './replication-operations.ts';
import { resizeOperation } from './resize-operation.ts';
import { resyncOperations } from './resync-operations.ts';
import { vmOperations } from './vm-operations.ts';

export function hostOperations(host: Host, console: ConsoleFacts): HostOperations {
  return {
    ...pairingOperations(host), ...vmOperations(host), ...replicationOperations(host), ...monitoringOperations(host), ...resyncOperations(host),
    ...importOperation(host), ...resizeOperation(host),
    ...failoverOperations(host), ...guestOperations(host), ...consoleOperations(console),
  };
}
