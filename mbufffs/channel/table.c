// SPDX-License-Identifier: MIT
/* A hash table with chains that keeps what it is given; it allocates only its slots until it is
 * taken down. */
#include <stdlib.h>

#include "internal.h"

static size_t slot_of(const struct table *table, uint64_t key)
{
	/* Keys are small counters or (generation, inode) pairs: mix all bits into the low ones. */
	key *= 0x9e3779b97f4a7c15u;
	return (key >> 32) & table->mask;
}

bool table_init(struct table *table)
{
	table->mask = 63;
	table->count = 0;
	table->slots = calloc(table->mask + 1, sizeof(*table->slots));
	return table->slots != NULL;
}

struct entry *table_find(const struct table *table, uint64_t key)
{
	struct entry *entry = table->slots[slot_of(table, key)];

	while (entry && entry->key != key)
		entry = entry->next;
	return entry;
}

static void grow(struct table *table)
{
	struct table larger = { .mask = table->mask * 2 + 1, .count = table->count };
	size_t slot;

	larger.slots = calloc(larger.mask + 1, sizeof(*larger.slots));
	if (!larger.slots)
		return; /* longer chains are slower, not wrong */
	for (slot = 0; slot <= table->mask; slot++) {
		struct entry *entry = table->slots[slot];

		while (entry) {
			struct entry *next = entry->next;
			struct entry **head = &larger.slots[slot_of(&larger, entry->key)];

			entry->next = *head;
			*head = entry;
			entry = next;
		}
	}
	free(table->slots);
	*table = larger;
}

void table_add(struct table *table, struct entry *entry)
{
	struct entry **head;

	if (table->count > table->mask)
		grow(table);
	head = &table->slots[slot_of(table, entry->key)];
	entry->next = *head;
	*head = entry;
	table->count++;
}

void table_remove(struct table *table, struct entry *entry)
{
	struct entry **link = &table->slots[slot_of(table, entry->key)];

	while (*link && *link != entry)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = entry->next;
	table->count--;
}

void table_free(struct table *table)
{
	size_t slot;

	for (slot = 0; table->slots && slot <= table->mask; slot++) {
		while (table->slots[slot]) {
			struct entry *entry = table->slots[slot];

			table->slots[slot] = entry->next;
			free(entry);
		}
	}
	free(table->slots);
	table->slots = NULL;
}
