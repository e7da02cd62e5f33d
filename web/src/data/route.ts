/** Which page is open: the part of the address after `#`. A VM's name may hold anything but a slash. */
import { useSyncExternalStore } from 'react';

export type VmTab = 'health' | 'resync' | 'points' | 'settings' | 'events';
export const VM_TABS: readonly (readonly [VmTab, string])[] = [
  ['health', 'Health'],
  ['resync', 'Resynchronization'],
  ['points', 'Recovery points'],
  ['settings', 'Settings'],
  ['events', 'Events'],
];

export type Route = { page: 'overview' | 'queue' | 'events' | 'peers' | 'enable' | 'add' } | { page: 'vm'; vm: string; tab: VmTab };

export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  return parse(hash);
}

export function hrefOf(route: Route): string {
  if (route.page === 'vm') return `#/vm/${encodeURIComponent(route.vm)}/${route.tab}`;
  return route.page === 'overview' ? '#/' : `#/${route.page}`;
}

export function go(route: Route): void {
  location.hash = hrefOf(route);
}

function parse(hash: string): Route {
  const [page, vm, tab] = hash.replace(/^#\/?/, '').split('/');
  if (page === 'vm' && vm !== undefined && vm !== '') {
    return { page: 'vm', vm: decoded(vm), tab: VM_TABS.find(([known]) => known === tab)?.[0] ?? 'health' };
  }
  return { page: (['queue', 'events', 'peers', 'enable', 'add'] as const).find((known) => known === page) ?? 'overview' };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function subscribe(listener: () => void): () => void {
  addEventListener('hashchange', listener);
  return () => removeEventListener('hashchange', listener);
}
