/** The links to other hosts: one per address and fingerprint, shared by all VMs, greeted before its first use. */
import type { Clock } from '../model/ports.ts';
import type { RemoteHost } from '../model/records.ts';
import type { HostIdentity } from '../peer/identity.ts';
import type { CallOptions, PeerLink } from '../peer/link.ts';
import type { PeerMessage, PeerStreamMessage } from '../peer/message.ts';
import { TlsPeerLink } from '../peer/tls-link.ts';

/** After so long the other host is greeted again: its clock may have gone astray since. */
const GREETING_HOLDS_MS = 300_000;

type Remote = Pick<RemoteHost, 'host' | 'port' | 'fingerprint'>;

export class LinkPool {
  #identity: HostIdentity;
  #clock: Clock;
  #greet: (link: PeerLink) => Promise<unknown>;
  #links = new Map<string, GreetedLink>();

  constructor(identity: HostIdentity, clock: Clock, greet: (link: PeerLink) => Promise<unknown>) {
    this.#identity = identity;
    this.#clock = clock;
    this.#greet = greet;
  }

  get(remote: Remote): PeerLink {
    const { host, port, fingerprint } = remote;
    const key = `${host} ${port} ${fingerprint}`;
    let link = this.#links.get(key);
    if (link === undefined) {
      const tls = new TlsPeerLink({ host, port, fingerprint, identity: this.#identity, clock: this.#clock });
      link = new GreetedLink(tls, this.#clock, this.#greet);
      this.#links.set(key, link);
    }
    return link;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#links.values()].map((link) => link.close()));
  }
}

/** Makes sure, before anything else is said, that both hosts speak the same protocol and that their clocks agree. */
class GreetedLink implements PeerLink {
  #link: PeerLink;
  #clock: Clock;
  #greet: (link: PeerLink) => Promise<unknown>;
  #greetedAt = -Infinity;
  #greeting: Promise<void> | null = null;

  constructor(link: PeerLink, clock: Clock, greet: (link: PeerLink) => Promise<unknown>) {
    this.#link = link;
    this.#clock = clock;
    this.#greet = greet;
  }

  async call<P, R>(message: PeerMessage<P, R>, params: P, payload?: Uint8Array, options?: CallOptions) {
    await this.#greeted();
    return this.#link.call(message, params, payload, options);
  }

  async stream<P>(message: PeerStreamMessage<P>, params: P, options?: CallOptions) {
    await this.#greeted();
    return this.#link.stream(message, params, options);
  }

  async #greeted(): Promise<void> {
    if (this.#clock.monotonic() - this.#greetedAt < GREETING_HOLDS_MS) return;
    this.#greeting ??= this.#greet(this.#link)
      .then(() => void (this.#greetedAt = this.#clock.monotonic()))
      .finally(() => (this.#greeting = null));
    await this.#greeting;
  }

  close(): Promise<void> {
    return this.#link.close();
  }
}
