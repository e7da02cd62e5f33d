/**
 * The tag of a leaf or page: GMAC, which is AES-256-GCM of no plaintext with the bytes as additional data (NIST SP 800-38D), under a secret key
 * that is drawn for one compare. Five times as fast as BLAKE3 (docs/decisions/0016-leaf-tags.md).
 *
 * What a tag proves: two leaves of `n` blocks of 16 bytes that are not equal have the same tag with a probability of at most
 * (n + 1) / 2^128, whatever the bytes are, as long as who chose them did not know the key. So
 * - a key is 32 bytes of the system's random numbers, of one compare only, and never leaves the two hosts but inside of their link;
 * - all tags of one compare have the same initialization vector, so that equal bytes have equal tags. A tag is no seal against somebody who
 *   sees many of them: the link is that.
 *
 * `leafTagger` calls the OpenSSL that Node itself carries; where its functions cannot be called (koffi does not load, other names) it is
 * Node's cipher, which gives the same tags at 20 µs more for each.
 */
import { createCipheriv, randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { libc } from '../../disk/libc.ts';

type Koffi = typeof import('koffi');

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;

/** Writes the 16 bytes of the tag of `data` to `into`, from `at` on. */
export type TagInto = (data: Uint8Array, into: Uint8Array, at: number) => void;

const CIPHER = 'aes-256-gcm';
const VECTOR = Buffer.alloc(12);
/** EVP_CTRL_AEAD_GET_TAG of OpenSSL's evp.h. */
const GET_TAG = 0x10;

export const drawKey = (): Buffer => randomBytes(KEY_BYTES);

/** `key`: 32 bytes. */
export const leafTagger = (key: Uint8Array): TagInto => nativeTagger(key) ?? portableTagger(key);

/** Exported for its tests. */
export function portableTagger(key: Uint8Array): TagInto {
  return (data, into, at) => {
    const cipher = createCipheriv(CIPHER, key, VECTOR);
    cipher.setAAD(data);
    cipher.final();
    into.set(cipher.getAuthTag(), at);
  };
}

let loaded: OpenSsl | null | undefined;

/** Null where the functions cannot be called, or give other tags than Node's cipher. Exported for its tests. */
export function nativeTagger(key: Uint8Array): TagInto | null {
  if (loaded === undefined) loaded = load();
  return loaded?.tagger(key) ?? null;
}

function load(): OpenSsl | null {
  if (process.platform !== 'linux') return null;
  try {
    const found = new OpenSsl(createRequire(import.meta.url)('koffi') as Koffi);
    return agrees(found) ? found : null;
  } catch {
    return null;
  }
}

function agrees(found: OpenSsl): boolean {
  const [key, data] = [Buffer.alloc(KEY_BYTES, 'key'), Buffer.alloc(1000, 'leaf')];
  const [ours, right] = [Buffer.alloc(TAG_BYTES), Buffer.alloc(TAG_BYTES)];
  for (const length of [0, 17, data.length]) {
    found.tagger(key)(data.subarray(0, length), ours, 0);
    portableTagger(key)(data.subarray(0, length), right, 0);
    if (!ours.equals(right)) return false;
  }
  return true;
}

/**
 * One context for this thread, that remembers the key it was last used with; a call is never interrupted by another one. Addresses are passed as
 * numbers: to convert five arrays took as long as the tag of a page.
 */
class OpenSsl {
  readonly #functions: ReturnType<typeof bind>;
  readonly #context: number;
  /** Vector, length and tag, which OpenSSL reads and writes. */
  readonly #memory = Buffer.allocUnsafeSlow(64).fill(0);
  readonly #at: { vector: number; length: number; tag: number };
  #keyed: TagInto | null = null;

  constructor(koffi: Koffi) {
    this.#functions = bind(koffi);
    this.#context = this.#functions.newContext();
    if (this.#context === 0) throw new Error('OpenSSL has no memory for a context');
    const start = this.#functions.address(this.#memory);
    this.#at = { vector: start, length: start + 16, tag: start + 32 };
  }

  tagger(key: Uint8Array): TagInto {
    const { update, final, control, address } = this.#functions;
    const { vector, length, tag } = this.#at;
    const own = Buffer.allocUnsafeSlow(KEY_BYTES);
    own.set(key);
    const tagInto: TagInto = (data, into, at) => {
      if (this.#keyed !== tagInto) this.#setKey(own, tagInto);
      const done = this.#functions.init(this.#context, 0, 0, 0, vector) === 1
        && update(this.#context, 0, length, address(data), data.length) === 1
        && final(this.#context, tag, length) === 1
        && control(this.#context, GET_TAG, TAG_BYTES, tag) === 1;
      if (!done) throw new Error('OpenSSL did not give a tag');
      for (let byte = 0; byte < TAG_BYTES; byte++) into[at + byte] = this.#memory[32 + byte]!;
    };
    return tagInto;
  }

  #setKey(key: Buffer, of: TagInto): void {
    const { init, cipher, address } = this.#functions;
    this.#keyed = null;
    if (init(this.#context, cipher(), 0, address(key), this.#at.vector) !== 1) throw new Error('OpenSSL did not take a key');
    this.#keyed = of;
  }
}

function bind(koffi: Koffi) {
  const self = koffi.load(null);
  const { addressOf } = libc();
  return {
    newContext: self.func('uintptr_t EVP_CIPHER_CTX_new()') as () => number,
    cipher: self.func('uintptr_t EVP_aes_256_gcm()') as () => number,
    init: self.func('int EVP_EncryptInit_ex(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t)') as Call,
    update: self.func('int EVP_EncryptUpdate(uintptr_t, uintptr_t, uintptr_t, uintptr_t, int)') as Call,
    final: self.func('int EVP_EncryptFinal_ex(uintptr_t, uintptr_t, uintptr_t)') as Call,
    control: self.func('int EVP_CIPHER_CTX_ctrl(uintptr_t, int, int, uintptr_t)') as Call,
    address(of: Uint8Array): number {
      const address = addressOf(of);
      if (address === null) throw new Error('no address of memory can be told here');
      return address;
    },
  };
}
type Call = (...words: number[]) => number;
