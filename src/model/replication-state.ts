/**
 * The words for what a relationship is and how well it does, with the numbers other programs know them by. Two numberings exist
 * and must not be mixed: PowerShell's `VMReplicationState` (our `stateNumber`) and WMI's `ReplicationState` (our `wmiState`).
 * From Replicating to UpdateError, PowerShell's number is WMI's plus one.
 */

export type StateFacts = {
  powershell: number;
  wmi: number;
  /** What a person reads in a list; the words of Hyper-V Manager where it has some. */
  text: string;
};

/** Names are PowerShell's. States below `RecoveryInProgress` are known to Hyper-V and never entered by this product. */
export const REPLICATION_STATES = {
  Disabled: { powershell: 0, wmi: 0, text: 'Not enabled' },
  ReadyForInitialReplication: { powershell: 1, wmi: 1, text: 'Pending initial replication' },
  InitialReplicationInProgress: { powershell: 2, wmi: 2, text: 'Initial replication in progress' },
  WaitingForInitialReplication: { powershell: 3, wmi: 2, text: 'Waiting for initial replication' },
  Replicating: { powershell: 4, wmi: 3, text: 'Replication enabled' },
  PreparedForFailover: { powershell: 5, wmi: 4, text: 'Prepared for planned failover' },
  FailedOverWaitingCompletion: { powershell: 6, wmi: 5, text: 'Failover started, waiting for completion' },
  FailedOver: { powershell: 7, wmi: 6, text: 'Failover complete' },
  Suspended: { powershell: 8, wmi: 7, text: 'Replication paused' },
  Error: { powershell: 9, wmi: 8, text: 'Replication error' },
  WaitingForStartResynchronize: { powershell: 10, wmi: 9, text: 'Resynchronization required' },
  Resynchronizing: { powershell: 11, wmi: 10, text: 'Resynchronizing' },
  ResynchronizeSuspended: { powershell: 12, wmi: 11, text: 'Resynchronize suspended' },
  RecoveryInProgress: { powershell: 13, wmi: 12, text: 'Failover in progress' },
  FailbackInProgress: { powershell: 14, wmi: 13, text: 'Failback in progress' },
  FailbackComplete: { powershell: 15, wmi: 14, text: 'Failback complete' },
  WaitingForUpdateCompletion: { powershell: 16, wmi: 15, text: 'Disk set update in progress' },
  UpdateError: { powershell: 17, wmi: 16, text: 'Disk set update failed' },
  WaitingForRepurposeCompletion: { powershell: 18, wmi: 18, text: 'Repurpose in progress' },
  PreparedForSyncReplication: { powershell: 19, wmi: 19, text: 'Prepared for synchronous replication' },
  PreparedForGroupReverseReplication: { powershell: 20, wmi: 20, text: 'Prepared for group reverse replication' },
  FiredrillInProgress: { powershell: 21, wmi: 21, text: 'Fire drill in progress' },
} as const satisfies Record<string, StateFacts>;

/** Every name Hyper-V knows; what comes from outside may be any of them. */
export type KnownState = keyof typeof REPLICATION_STATES;

/** The states a relationship of this product can be in: what is stored, and what the table of operations is made of. */
export const STATES = [
  'Disabled',
  'ReadyForInitialReplication',
  'InitialReplicationInProgress',
  'WaitingForInitialReplication',
  'Replicating',
  'PreparedForFailover',
  'FailedOverWaitingCompletion',
  'FailedOver',
  'Suspended',
  'Error',
  'WaitingForStartResynchronize',
  'Resynchronizing',
  'ResynchronizeSuspended',
] as const satisfies readonly KnownState[];
export type ReplicationState = (typeof STATES)[number];

/** Worst last, so that the larger number wins. Both numberings agree here. */
export const HEALTH_NUMBERS = { NotApplicable: 0, Normal: 1, Warning: 2, Critical: 3 } as const;
export type ReplicationHealth = keyof typeof HEALTH_NUMBERS;

/** WMI labels 2 and 3 differently ("Recovery", "Replica"); the numbers are the same. */
export const MODE_NUMBERS = { None: 0, Primary: 1, Replica: 2, TestReplica: 3, ExtendedReplica: 4 } as const;
export type ReplicationMode = keyof typeof MODE_NUMBERS;

export const RELATIONSHIP_TYPE_NUMBERS = { Simple: 0, Extended: 1 } as const;
export type RelationshipType = keyof typeof RELATIONSHIP_TYPE_NUMBERS;

/** How the last data came, and what a failover used. */
export const REPLICATION_TYPE_NUMBERS = { None: 0, Regular: 1, ApplicationConsistent: 2, Planned: 3 } as const;
export type ReplicationType = keyof typeof REPLICATION_TYPE_NUMBERS;

/** The side of a relationship a host is on. An extended replica is the replica side of its own relationship. */
export type Side = 'primary' | 'replica';

/** While a relationship is in one of these, planned and test failover are refused and recovery points are frozen. */
export const RESYNC_STATES: readonly ReplicationState[] = [
  'WaitingForStartResynchronize',
  'Resynchronizing',
  'ResynchronizeSuspended',
];
