/** Every bound of the NBD server with its reason. Units last. Tests and embedders may pass smaller ones. */

const KIB = 1024;
const MIB = 1024 * KIB;

export interface NbdLimits {
  /**
   * Connections at once; more are closed at accept. A VM has at most 64 disks, and most clients use 1 to 4 connections.
   */
  connections: number;
  /**
   * From accept to the start of transmission. Real clients need milliseconds; this stops those who only hold a place.
   */
  handshakeMs: number;
  /** Options in one handshake. QEMU sends 3, nbdinfo --list about 5 per export. */
  options: number;
  /** Data of one option: a name and some context queries of at most 4 KiB each. */
  optionBytes: number;
  /** Payload of one READ or WRITE: what clients may assume when no block sizes were negotiated. */
  payloadBytes: number;
  /** Requests of one connection that are not answered yet; then its socket is not read. QEMU uses 16, nbdcopy 64. */
  requestsInFlight: number;
  /** READ and WRITE bytes of one connection that are not answered yet; one request of any size is always admitted. */
  connectionBytes: number;
  /** Payload and reply memory of all connections. What does not fit waits, first come, first served. */
  memoryBytes: number;
  /** A client that neither sends nor takes bytes for so long is closed, if others wait for the memory it holds. */
  stallMs: number;
  /**
   * For so long the event loop looks for the next request instead of sleeping, when the one before came as soon. A guest that asks for one thing
   * at a time asks again within 20 to 70 µs. 0: never.
   */
  pollMs: number;
}

export const NBD_LIMITS: Readonly<NbdLimits> = {
  connections: 128,
  handshakeMs: 10_000,
  options: 64,
  optionBytes: 64 * KIB,
  payloadBytes: 32 * MIB,
  requestsInFlight: 256,
  connectionBytes: 32 * MIB,
  memoryBytes: 96 * MIB,
  stallMs: 30_000,
  pollMs: 0.1,
};
