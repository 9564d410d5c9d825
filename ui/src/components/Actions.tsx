/** Actions on one worker or many. A dialog asks for confirmation first. */

import { Button, HStack, Text } from "@chakra-ui/react";
import { useState } from "react";
import { act, Problem } from "../api";
import type { ActionResult, BulkResult, Worker } from "../types";
import { words } from "../words";
import { Dialog, type DialogField } from "./Dialog";

const ACTIONS = ["pause", "serve", "drain", "restart", "update", "rotate", "acknowledge", "suspend", "unsuspend", "revoke", "remove"] as const;
export type Action = (typeof ACTIONS)[number];

const WITH_REASON: readonly Action[] = ["pause", "serve", "drain", "restart", "suspend"];
const DESTRUCTIVE: readonly Action[] = ["suspend", "revoke", "remove"];

/** The API accepts at most this many names in a call. */
export const MAX_NAMES_PER_CALL = 500;

/** Return the actions that make sense for at least one of these workers. */
export function applicable(workers: readonly Worker[]): Action[] {
  const appliesTo: Record<Action, (worker: Worker) => boolean> = {
    pause: (worker) => worker.intent !== "pause",
    serve: (worker) => worker.intent !== "serve",
    drain: (worker) => worker.intent !== "drain",
    restart: (worker) => worker.presence !== "gone" && worker.restart_asked_at === null,
    update: (worker) => worker.presence !== "gone" && worker.release !== null,
    rotate: (worker) => worker.presence !== "gone",
    acknowledge: (worker) => worker.alarm !== "" && worker.suspended_at === null,
    suspend: (worker) => worker.suspended_at === null,
    unsuspend: (worker) => worker.suspended_at !== null,
    revoke: (worker) => worker.presence !== "gone",
    remove: () => true,
  };
  return ACTIONS.filter((action) => workers.some(appliesTo[action]));
}

interface ActionsProps {
  workers: readonly Worker[];
  /** Called with the names of the workers that were refused. */
  onDone: (refused: readonly string[]) => void;
}

export function Actions({ workers, onDone }: ActionsProps) {
  const [pending, setPending] = useState<Action>();
  const [outcome, setOutcome] = useState("");
  const names = workers.map((worker) => worker.name);

  async function apply(action: Action, reason: string, minutes: string): Promise<void> {
    const request = {
      action,
      ...(WITH_REASON.includes(action) ? { reason } : {}),
      ...(action === "pause" && Number(minutes) > 0 ? { lasts_s: Number(minutes) * 60 } : {}),
    };
    const results: ActionResult[] = [];
    for (let at = 0; at < names.length; at += MAX_NAMES_PER_CALL) {
      const result = await act<BulkResult>("POST", "workers/actions", { ...request, names: names.slice(at, at + MAX_NAMES_PER_CALL) });
      results.push(...result.workers);
    }
    const refused = results.filter((one) => one.problem !== null);
    onDone(refused.map((one) => one.name));
    if (refused.length === results.length) throw new Problem(refused.map((one) => one.problem?.detail).join(" "), 422, "invalid");
    setOutcome([words().done(results.length - refused.length), ...refused.map((one) => `${one.name}: ${one.problem?.detail ?? ""}`)].join(" · "));
  }

  return (
    <HStack gap="2" wrap="wrap">
      {applicable(workers).map((action) => (
        <Button
          colorPalette={DESTRUCTIVE.includes(action) ? "red" : "gray"}
          key={action}
          onClick={() => setPending(action)}
          size="xs"
          variant="outline"
        >
          {words().actions[action]}
        </Button>
      ))}
      <Text aria-live="polite" fontSize="sm">
        {outcome}
      </Text>
      {pending ? (
        <Dialog
          explanation={words().explanations[pending]}
          fields={fieldsOf(pending)}
          isDestructive={DESTRUCTIVE.includes(pending)}
          onClose={() => setPending(undefined)}
          onConfirm={({ reason, lasts }) => apply(pending, reason, lasts)}
          title={words().confirm(words().actions[pending], names)}
        />
      ) : null}
    </HStack>
  );
}

function fieldsOf(action: Action): DialogField<"reason" | "lasts">[] {
  if (!WITH_REASON.includes(action)) return [];
  const reason = { name: "reason", label: words().prompts.reason } as const;
  return action === "pause" ? [reason, { name: "lasts", label: words().prompts.lasts }] : [reason];
}
