/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels that the module is built for, 6.1 and later; nothing else. */
#ifndef MBUFF_COMPAT_H
#define MBUFF_COMPAT_H

#include <linux/fs.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
/* Rights were mapped by a user namespace before mounts got a mapping of their own type. */
#define mbuff_idmap user_namespace
#define mbuff_no_idmap (&init_user_ns)
#else
#define mbuff_idmap mnt_idmap
#define mbuff_no_idmap (&nop_mnt_idmap)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define mbuff_mapping_data(mapping) ((mapping)->private_data)
#else
#define mbuff_mapping_data(mapping) ((mapping)->i_private_data)
#endif

/* The times of an inode got accessors: ctime in 6.6, the others in 6.7. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define mbuff_atime(inode) ((inode)->i_atime)
#define mbuff_mtime(inode) ((inode)->i_mtime)
#else
#define mbuff_atime(inode) inode_get_atime(inode)
#define mbuff_mtime(inode) inode_get_mtime(inode)
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define mbuff_ctime(inode) ((inode)->i_ctime)
#else
#define mbuff_ctime(inode) inode_get_ctime(inode)
#endif

/* call_mmap() got another name in 6.17. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
#define mbuff_mmap_file call_mmap
#else
#define mbuff_mmap_file vfs_mmap
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define mbuff_vm_flags_set(vma, flags) ((vma)->vm_flags |= (flags))
#else
#define mbuff_vm_flags_set vm_flags_set
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define mbuff_splice_read generic_file_splice_read
#else
#define mbuff_splice_read copy_splice_read
#endif

/* The page allocator's largest block, which MAX_ORDER was first above, then itself. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define MBUFF_ORDER_MAX (MAX_ORDER - 1)
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define MBUFF_ORDER_MAX MAX_ORDER
#else
#define MBUFF_ORDER_MAX MAX_PAGE_ORDER
#endif

#ifdef PHYS_MASK
#define MBUFF_PHYSICAL_MAX min_t(u64, iomem_resource.end, PHYS_MASK)
#else
#define MBUFF_PHYSICAL_MAX iomem_resource.end
#endif

/* Files that FUSE passthrough opens are marked since 6.6; passthrough itself came with 6.9. */
#ifndef FMODE_BACKING
#define FMODE_BACKING ((__force fmode_t)0)
#endif

#endif
