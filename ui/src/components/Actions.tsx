/** What may be done to workers, one or many: each asked about first. */

import { Button, HStack, Text } from "@chakra-ui/react";
import { useState } from "react";
import { act, Problem } from "../api";
import type { BulkDone, Done, Worker } from "../types";
import { words } from "../words";
import { Ask, type Want } from "./Ask";

const ACTIONS = ["pause", "serve", "drain", "restart", "rotate", "acknowledge", "suspend", "unsuspend", "revoke", "remove"] as const;
export type Action = (typeof ACTIONS)[number];

const WITH_REASON: readonly Action[] = ["pause", "serve", "drain", "restart", "suspend"];
const GRAVE: readonly Action[] = ["suspend", "revoke", "remove"];

/** More names than these the API takes in no one call. */
const MOST_AT_ONCE = 500;

/** Return what makes sense for at least one of these workers. */
export function sensible(workers: readonly Worker[]): Action[] {
  const means: Record<Action, (worker: Worker) => boolean> = {
    pause: (worker) => worker.intent !== "pause",
    serve: (worker) => worker.intent !== "serve",
    drain: (worker) => worker.intent !== "drain",
    restart: (worker) => worker.presence !== "gone" && worker.restart_asked_at === null,
    rotate: (worker) => worker.presence !== "gone",
    acknowledge: (worker) => worker.alarm !== "" && worker.suspended_at === null,
    suspend: (worker) => worker.suspended_at === null,
    unsuspend: (worker) => worker.suspended_at !== null,
    revoke: (worker) => worker.presence !== "gone",
    remove: () => true,
  };
  return ACTIONS.filter((action) => workers.some(means[action]));
}

export function Actions({ workers, onDone }: { workers: readonly Worker[]; onDone: () => void }) {
  const [asked, setAsked] = useState<Action>();
  const [told, setTold] = useState("");
  const names = workers.map((worker) => worker.name);

  async function doIt(action: Action, reason: string, minutes: string): Promise<void> {
    const wish = {
      action,
      ...(WITH_REASON.includes(action) ? { reason } : {}),
      ...(action === "pause" && Number(minutes) > 0 ? { lasts_s: Number(minutes) * 60 } : {}),
    };
    const all: Done[] = [];
    for (let at = 0; at < names.length; at += MOST_AT_ONCE) {
      const done = await act<BulkDone>("POST", "workers/actions", { ...wish, names: names.slice(at, at + MOST_AT_ONCE) });
      all.push(...done.workers);
    }
    onDone();
    const refused = all.filter((one) => one.problem !== null);
    if (refused.length === all.length) throw new Problem(refused.map((one) => one.problem?.detail).join(" "), 422, "invalid");
    setTold([words().done(all.length - refused.length), ...refused.map((one) => `${one.name}: ${one.problem?.detail ?? ""}`)].join(" · "));
  }

  return (
    <HStack gap="2" wrap="wrap">
      {sensible(workers).map((action) => (
        <Button
          colorPalette={GRAVE.includes(action) ? "red" : "gray"}
          key={action}
          onClick={() => setAsked(action)}
          size="xs"
          variant="outline"
        >
          {words().actions[action]}
        </Button>
      ))}
      <Text aria-live="polite" fontSize="sm">
        {told}
      </Text>
      {asked ? (
        <Ask
          doIt={({ reason, lasts }) => doIt(asked, reason, lasts)}
          explained={words().explained[asked]}
          isGrave={GRAVE.includes(asked)}
          onClose={() => setAsked(undefined)}
          title={words().confirm(words().actions[asked], names)}
          wants={wanted(asked)}
        />
      ) : null}
    </HStack>
  );
}

function wanted(action: Action): Want<"reason" | "lasts">[] {
  if (!WITH_REASON.includes(action)) return [];
  const reason = { name: "reason", label: words().ask.reason } as const;
  return action === "pause" ? [reason, { name: "lasts", label: words().ask.lasts }] : [reason];
}
