/** Signed in or not, and as what. */
import { createContext, useContext } from 'react';
import { get, post, Refusal } from './call.ts';

export interface Session {
  role: 'administrator' | 'reader';
  expiresAt: string;
  hostName: string;
  version: string;
}

export const SessionContext = createContext<{ session: Session; signOut: () => void } | null>(null);

export function useSession(): { session: Session; signOut: () => void } {
  const context = useContext(SessionContext);
  if (context === null) throw new Error('there is a session inside of the console');
  return context;
}

/** Null when nobody is signed in. */
export async function currentSession(): Promise<Session | null> {
  try {
    return (await get('/session')) as Session;
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return null;
    throw error;
  }
}

export async function signIn(token: string): Promise<Session> {
  return (await post('/session/sign-in', { token })) as Session;
}

export async function signOut(): Promise<void> {
  await post('/session/sign-out', {});
}

/** From the link of `understudy console`. Taken out of the address, so that it stays in no history. */
export function takeTokenFromAddress(): string | null {
  const token = tokenIn(location.hash);
  if (token !== null) history.replaceState(null, '', `${location.pathname}#/`);
  return token;
}

/** A person may paste the whole link. */
export function tokenIn(text: string): string | null {
  return /#token=([\w-]+)/.exec(text)?.[1] ?? null;
}
