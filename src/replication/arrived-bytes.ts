/** Bytes that came over the network for a replica, on record together with the next set or piece of work: nothing is written for them alone. */
import type { RelationshipRecord } from '../model/records.ts';
import type { Relationships } from './relationships.ts';

export class ArrivedBytes {
  readonly #relationships: Relationships;
  readonly #vmId: string;
  #bytes = 0;

  constructor(relationships: Relationships, vmId: string) {
    this.#relationships = relationships;
    this.#vmId = vmId;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** The totals with what has come; the caller puts them on record. */
  taken(): RelationshipRecord['transferred'] {
    const { transferred } = this.#relationships.get(this.#vmId);
    const wireBytes = transferred.wireBytes + this.#bytes;
    this.#bytes = 0;
    return { ...transferred, wireBytes };
  }

  /** Puts them on record by themselves, when there is something. */
  keep(): void {
    if (this.#bytes === 0 || this.#relationships.find(this.#vmId) === undefined) return;
    this.#relationships.update(this.#vmId, { transferred: this.taken() });
  }
}
