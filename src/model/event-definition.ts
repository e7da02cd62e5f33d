/** What an event of the catalogue is (events.ts). */

export type EventLevel = 'Information' | 'Warning' | 'Error';
export type EventId = number | string;

/** An event without its time, which the catalog adds when it records it. `data` is JSON: bytes, blocks, seconds, ISO times. */
export type ReplicationEvent = {
  id: EventId;
  level: EventLevel;
  vmName: string | null;
  message: string;
  data: Record<string, unknown>;
};

export type EventDefinition<Data extends object> = {
  id: EventId;
  level: EventLevel;
  /** One line for the list of events. */
  summary: string;
  message(vmName: string, data: Data): string;
};

export function define<Data extends object>(
  id: EventId,
  level: EventLevel,
  summary: string,
  message: (vmName: string, data: Data) => string,
): EventDefinition<Data> {
  return { id, level, summary, message };
}

export type Failure = { reason: string; code: string };
